package rest

import (
	"strings"

	"parley/internal/auth"
	"parley/internal/id"
	"parley/internal/problem"
)

func (f *face) getMe(c *call) (auth.User, error) { return f.Users.Get(c.Context(), c.user) }

func (f *face) getUser(c *call) (auth.User, error) {
	u, err := id.ParseUser(c.PathValue("id"))
	if err != nil {
		return auth.User{}, problem.New(problem.NotFound, "User not found") // as auth says it of one who never existed
	}
	return f.Users.Get(c.Context(), u)
}

// userList holds users in the order in which they were asked for.
type userList struct {
	Users []auth.User `json:"users" doc:"In the order in which they were asked for, each once."`
}

func (f *face) listUsers(c *call) (userList, error) {
	c.route.param("ids")
	var ids []id.User
	for _, list := range c.query["ids"] {
		for s := range strings.SplitSeq(list, ",") {
			u, err := id.ParseUser(s)
			if err != nil {
				return userList{}, problem.New(problem.BadRequest, "ids holds what is no user id.")
			}
			ids = append(ids, u)
		}
	}
	if len(ids) == 0 {
		return userList{}, problem.New(problem.BadRequest, "ids must name somebody.")
	}
	found, err := f.Users.Lookup(c.Context(), ids)
	if err != nil {
		return userList{}, err
	}
	out := userList{Users: []auth.User{}}
	for _, u := range ids {
		if row, ok := found[u]; ok {
			out.Users = append(out.Users, row)
			delete(found, u) // whoever was named twice is answered once
		}
	}
	return out, nil
}
