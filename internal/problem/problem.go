package problem

import (
	"errors"
	"net/http"
	"time"
)

// Code is a failure's stable name on the wire.
type Code string

// The codes that a client may meet, in the order of their statuses.
const (
	BadRequest       Code = "bad_request"
	NotAuthenticated Code = "not_authenticated"
	TokenExpired     Code = "token_expired"
	Forbidden        Code = "forbidden"
	NotFound         Code = "not_found"
	MethodNotAllowed Code = "method_not_allowed"
	Conflict         Code = "conflict"
	TooLarge         Code = "too_large"
	Blocked          Code = "blocked"
	RateLimited      Code = "rate_limited"
	Internal         Code = "internal"
	Overloaded       Code = "overloaded"
	Unavailable      Code = "unavailable"
	StorageFull      Code = "storage_full"
)

// statuses maps each code to its HTTP status; it is also the list of all codes.
var statuses = map[Code]int{
	BadRequest:       http.StatusBadRequest,
	NotAuthenticated: http.StatusUnauthorized,
	TokenExpired:     http.StatusUnauthorized,
	Forbidden:        http.StatusForbidden,
	NotFound:         http.StatusNotFound,
	MethodNotAllowed: http.StatusMethodNotAllowed,
	Conflict:         http.StatusConflict,
	TooLarge:         http.StatusRequestEntityTooLarge,
	Blocked:          http.StatusUnprocessableEntity,
	RateLimited:      http.StatusTooManyRequests,
	Internal:         http.StatusInternalServerError,
	Overloaded:       http.StatusServiceUnavailable,
	Unavailable:      http.StatusServiceUnavailable,
	StorageFull:      http.StatusInsufficientStorage,
}

// Status is the HTTP status that goes with the code.
func (c Code) Status() int { return statuses[c] }

// Sentences that clients of the tutorial compare with; they are exact.
const (
	ConversationNotFound = "Conversation not found"
	UserNotAuthorized    = "User not authorized"
	AuthenticationFailed = "Authentication failed"
	RateLimitExceeded    = "Rate limit exceeded. Please slow down."
)

// Error is a failure that may be shown to the client whose request caused it.
type Error struct {
	Code       Code
	Message    string        // a sentence for people
	RetryAfter time.Duration // 0: not said
}

// New makes an Error; code must be one of this package's.
func New(code Code, message string) *Error {
	if statuses[code] == 0 {
		panic("problem: unknown code " + string(code))
	}
	return &Error{Code: code, Message: message}
}

// Error is for logs; the client is shown the fields.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Is holds two Errors for the same when code and message are.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Message == e.Message
}

// Of finds the Error in err's chain. An err without one is [Internal], in words that tell nothing;
// shown is false then, and the caller logs the cause.
func Of(err error) (e *Error, shown bool) {
	if errors.As(err, &e) {
		return e, true
	}
	return &Error{Code: Internal, Message: "Something went wrong on our side."}, false
}
