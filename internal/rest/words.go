package rest

import "strings"

// fieldWords say what the fields of other packages' rows mean, for the reference. A test holds every field of every
// schema to have some; those of this package carry theirs in a doc tag.
var fieldWords = map[string]string{
	"Conversation.id":              "Names the conversation.",
	"Conversation.type":            "What it is: a direct one has two members for ever, in a channel few may post.",
	"Conversation.name":            "What its makers called it.",
	"Conversation.avatar_url":      "Where its picture is.",
	"Conversation.participant_ids": "The first 100 members, in the order of joining; list-members has them all.",
	"Conversation.admin_ids":       "Those of participant_ids who may add and remove members.",
	"Conversation.last_message_id": "The newest message.",
	"Conversation.last_message_at": "When the newest message was made.",
	"Conversation.created_by":      "Who made it.",
	"Conversation.settings":        "Kept for later; empty.",
	"Conversation.created_at":      "When it was made.",
	"Conversation.updated_at":      "When its settings, its members or its newest message last changed.",
	"Conversation.member_count":    "How many members it has.",
	"Conversation.last_seq":        "The seq of the newest message; 0 before the first.",
	"Conversation.pos":             "Where the last change of its settings stands in the log, for those who compare two rows: the higher is the later.",
	"Conversation.role":            "What the caller is in it: owner, admin, moderator, member or guest.",

	"Member.user_id":       "Who it is.",
	"Member.role":          "What he is: owner, admin, moderator, member or guest.",
	"Member.joined_at":     "When the membership began.",
	"Member.joined_seq":    "The last message before the membership.",
	"Member.delivered_seq": "The last message that reached him.",
	"Member.read_seq":      "The last message that he read.",

	"Message.id":                "Names the message.",
	"Message.conversation_id":   "Where it was sent.",
	"Message.sender_id":         "Who sent it; of a system message, who did what it tells.",
	"Message.content":           "The text; \"[Message deleted]\" in what stays of a deleted one.",
	"Message.type":              "What it is. A system message tells of members who came or left.",
	"Message.encrypted_content": "What the server cannot read.",
	"Message.file_url":          "Kept for later.",
	"Message.file_name":         "Kept for later.",
	"Message.file_size":         "Kept for later.",
	"Message.metadata":          "The application's own; of a system message: kind, user_ids, count.",
	"Message.reactions":         "Kept for later; empty.",
	"Message.reply_to_id":       "The message that it answers.",
	"Message.is_edited":         "Whether its text was replaced.",
	"Message.is_deleted":        "Whether it was deleted.",
	"Message.is_flagged":        "Whether moderation objects; true only for those who may moderate.",
	"Message.edited_at":         "When its text was last replaced.",
	"Message.deleted_at":        "When it was deleted.",
	"Message.created_at":        "When it was made; never earlier than the message before it.",
	"Message.seq":               "Its place in the conversation: 1, 2, 3 ... in the order of being stored.",
	"Message.pos":               "Where its last change stands in the log, for those who compare two rows: the higher is the later.",
	"Message.reaction_counts":   "Kept for later; empty.",
	"Message.client_message_id": "The sender's own name for it; for the sender only.",

	"HistoryPage.messages": "Oldest first.",
	"HistoryPage.prev":     "The value of before for the page of older ones; absent when there are none.",
	"HistoryPage.next":     "The value of after for the page of newer ones; absent when there are none.",

	"ReceiptCounts.read":      "How many have read it.",
	"ReceiptCounts.delivered": "How many it has reached, those who have read it included.",
	"ReceiptCounts.sent":      "How many it concerns, all of those included.",

	"Reader.user_id":      "Who it is; he may have left since.",
	"Reader.status":       "How far it has got with him.",
	"Reader.delivered_at": "When it reached him, to a second after; null while it has not.",
	"Reader.read_at":      "When he read it; null while he has not.",

	"SyncPage.changes":  "In an order in which they can be applied.",
	"SyncPage.cursor":   "What to ask with the next time; it never expires.",
	"SyncPage.has_more": "Whether there is more to get at once, with the new cursor.",
	"SyncPage.reset":    "True: the database is not the one that the cursor was of. Nothing got before counts.",

	"SyncChange.kind":         "Which of the other fields is there.",
	"SyncChange.message":      "A message that is new or was changed, in its present state.",
	"SyncChange.conversation": "A conversation that is new to the caller or was changed.",
	"SyncChange.membership":   "The caller's own place in a conversation, begun or ended.",

	"SyncMembership.conversation_id": "In which conversation.",
	"SyncMembership.user_id":         "The caller.",
	"SyncMembership.role":            "What the caller is in it: owner, admin, moderator, member or guest.",
	"SyncMembership.active":          "False: the membership has ended.",
	"SyncMembership.joined_at":       "When the membership began.",
	"SyncMembership.delivered_seq":   "The last message that reached the caller.",
	"SyncMembership.read_seq":        "The last message that the caller read.",

	"User.id":           "The application's own name for the user.",
	"User.display_name": "What to show; the id until a token brings a name.",
	"User.username":     "Kept for later.",
	"User.avatar_url":   "Where the user's picture is.",
	"User.role":         "What the user's last token said.",
	"User.metadata":     "Kept for later.",
	"User.created_at":   "When the user was first heard of.",
	"User.updated_at":   "When the row was last changed.",
}

// pathWords say what a parameter of the path names, by what stands before it.
func pathWords(before, name string) string {
	switch {
	case name == "user_id" || strings.HasPrefix(before, "/v1/users/"):
		return "The user's id, percent-encoded."
	case strings.HasPrefix(before, "/v1/messages/"):
		return "The message's id."
	default:
		return "The conversation's id."
	}
}
