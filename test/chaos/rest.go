package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"parley/test/chaos/history"
	"parley/test/chaos/world"
)

const (
	// answerMax is how long an answer by REST is waited for. What comes later is as good as nothing: the outcome is unknown.
	answerMax = 5 * time.Second
	// answerBytesMax bounds what is read of one; a page of sync is the longest.
	answerBytesMax = 16 << 20
)

// ask does the operation that l describes as a request to a node, and records its beginning and its outcome, which it returns. decode reads
// an answer into that line.
func (r *run) ask(ctx context.Context, node *world.Node, l history.Line, method, path string, body any, decode func(answer []byte, l *history.Line) error) history.Line {
	l.Phase, l.Op, l.Node = history.Invoke, r.rec.Op(), node.Name
	r.rec.Add(l)
	out := history.Line{Phase: history.Unknown, Kind: l.Kind, Op: l.Op}
	ctx, cancel := context.WithTimeout(ctx, answerMax)
	defer cancel()
	status, answer, err := r.request(ctx, node, l.User, method, path, body)
	switch {
	case err != nil:
		out.Code = "no answer"
	case status < 300:
		out.Phase = history.OK
		if decode != nil {
			if err := decode(answer, &out); err != nil {
				r.fail(fmt.Errorf("%s %s is answered by %.200q: %w", method, path, answer, err))
			}
		}
	default:
		var problem struct{ Code string }
		_ = json.Unmarshal(answer, &problem) // One without a code is not known.
		if out.Code = problem.Code; out.Code == "" {
			out.Code = "status " + strconv.Itoa(status)
		}
		out.Phase = history.Fail
	}
	r.rec.Add(out)
	return out
}

func (r *run) request(ctx context.Context, node *world.Node, user, method, path string, body any) (status int, answer []byte, err error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+node.Address()+path, content)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+r.world.Token(user))
	response, err := r.web.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close() // It was only read.
	answer, err = io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	return response.StatusCode, answer, err
}

// create makes a conversation and returns its id; at a node that is well.
func (r *run) create(ctx context.Context, node *world.Node, kind, user string, others []string) (string, error) {
	out := r.ask(ctx, node, history.Line{Kind: history.Create, User: user, Users: others}, http.MethodPost, "/v1/conversations",
		map[string]any{"type": kind, "name": "chaos", "member_ids": others}, func(answer []byte, l *history.Line) error {
			var row struct{ ID string }
			err := json.Unmarshal(answer, &row)
			l.Conversation = row.ID
			return err
		})
	if out.Phase != history.OK {
		return "", fmt.Errorf("a conversation of %d cannot be made: %s", len(others)+1, out.Code)
	}
	return out.Conversation, nil
}

// post sends a draft by REST.
func (r *run) post(ctx context.Context, node *world.Node, d *draft) history.Line {
	return r.ask(ctx, node, d.line(), http.MethodPost, "/v1/conversations/"+d.conversation+"/messages", d.body(), decodeMessage)
}

// decodeMessage reads {"message": row} as well as a bare row.
func decodeMessage(answer []byte, l *history.Line) error {
	var sent struct {
		Message *wireMessage `json:"message"`
		wireMessage
	}
	if err := json.Unmarshal(answer, &sent); err != nil {
		return err
	}
	if sent.Message == nil {
		sent.Message = &sent.wireMessage
	}
	l.Rows = []history.Row{sent.Message.row()}
	return nil
}

// edit gives a message a new text by REST.
func (r *run) edit(ctx context.Context, node *world.Node, user string, t target) history.Line {
	version := r.version()
	l := history.Line{Kind: history.Edit, User: user, Conversation: t.conversation, Message: t.id, Seq: t.seq, Name: t.name, Version: version}
	return r.ask(ctx, node, l, http.MethodPatch, "/v1/messages/"+t.id, map[string]any{"content": text(t.name, version)}, decodeMessage)
}

// remove deletes a message by REST.
func (r *run) remove(ctx context.Context, node *world.Node, user string, t target) history.Line {
	l := history.Line{Kind: history.Delete, User: user, Conversation: t.conversation, Message: t.id, Seq: t.seq}
	return r.ask(ctx, node, l, http.MethodDelete, "/v1/messages/"+t.id, nil, nil)
}

// addMember and removeMember change who is in a group.
func (r *run) addMember(ctx context.Context, node *world.Node, g guest) history.Line {
	return r.ask(ctx, node, history.Line{Kind: history.AddTo, User: g.group.owner.name, Conversation: g.group.id, Users: []string{g.user}},
		http.MethodPost, "/v1/conversations/"+g.group.id+"/members", map[string]any{"member_ids": []string{g.user}}, nil)
}

func (r *run) removeMember(ctx context.Context, node *world.Node, g guest) history.Line {
	return r.ask(ctx, node, history.Line{Kind: history.Remove, User: g.group.owner.name, Conversation: g.group.id, Users: []string{g.user}},
		http.MethodDelete, "/v1/conversations/"+g.group.id+"/members/"+url.PathEscape(g.user), nil, nil)
}

// page reads a page of a conversation's history: l has Before or After, if any, and Limit.
func (r *run) page(ctx context.Context, node *world.Node, l history.Line) history.Line {
	query := url.Values{"limit": {strconv.Itoa(l.Limit)}}
	if l.Before > 0 {
		query.Set("before", strconv.FormatInt(l.Before, 10))
	}
	if l.After > 0 {
		query.Set("after", strconv.FormatInt(l.After, 10))
	}
	l.Kind = history.History
	return r.ask(ctx, node, l, http.MethodGet, "/v1/conversations/"+l.Conversation+"/messages?"+query.Encode(), nil, func(answer []byte, l *history.Line) error {
		var page struct {
			Messages []wireMessage
			Prev     string
		}
		err := json.Unmarshal(answer, &page)
		for i := range page.Messages {
			l.Rows = append(l.Rows, page.Messages[i].row())
		}
		l.More = page.Prev != ""
		return err
	})
}

// members reads the list of members, which fits one page.
func (r *run) members(ctx context.Context, node *world.Node, user, conversation string) history.Line {
	return r.ask(ctx, node, history.Line{Kind: history.Members, User: user, Conversation: conversation}, http.MethodGet,
		"/v1/conversations/"+conversation+"/members?limit=100", nil, func(answer []byte, l *history.Line) error {
			var page struct {
				Members []struct {
					UserID       string `json:"user_id"`
					DeliveredSeq int64  `json:"delivered_seq"`
					ReadSeq      int64  `json:"read_seq"`
				}
			}
			err := json.Unmarshal(answer, &page)
			for _, m := range page.Members {
				l.Receipts = append(l.Receipts, history.Receipt{User: m.UserID, Delivered: m.DeliveredSeq, Read: m.ReadSeq})
			}
			return err
		})
}

// sync asks for a page of changes by REST, for a device that has no connection.
func (r *run) sync(ctx context.Context, node *world.Node, user, device, cursor string) history.Line {
	l := history.Line{Kind: history.Sync, User: user, Device: device, Cursor: cursor}
	return r.ask(ctx, node, l, http.MethodPost, "/v1/sync", map[string]any{"cursor": cursor, "limit": syncLimit}, func(answer []byte, l *history.Line) error {
		var page wirePage
		err := json.Unmarshal(answer, &page)
		page.into(l)
		return err
	})
}

// syncLimit is how many changes a page of sync is to have.
const syncLimit = 500
