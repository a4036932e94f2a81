package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"parley/internal/id"
	"parley/internal/problem"
	"parley/internal/sqldb"
	"parley/internal/wire"
)

// LookupMax bounds the users of one [Users.Lookup].
const LookupMax = 1000

const (
	cachedMax = 1 << 16         // users; some 10 MB
	cachedAge = 5 * time.Minute // how long a change made on another node may go unseen by SignedIn
)

// User is a row of users.
type User struct {
	ID          id.User         `json:"id"`
	DisplayName string          `json:"display_name"` // the id until a name is known
	Username    *string         `json:"username"`
	Email       *string         `json:"-"` // private
	AvatarURL   *string         `json:"avatar_url"`
	Role        Role            `json:"role" enum:"user,admin,guest"`
	Metadata    json.RawMessage `json:"metadata"`
	CreatedAt   wire.Time       `json:"created_at"`
	UpdatedAt   wire.Time       `json:"updated_at"`
}

// Users is the one writer of the users table. It may be used by any number of goroutines.
type Users struct {
	db  *sqldb.DB
	now func() time.Time

	mu     sync.Mutex
	cached map[id.User]cachedUser
}

type cachedUser struct {
	user User
	read time.Time
}

// NewUsers works on a migrated database.
func NewUsers(db *sqldb.DB, now func() time.Time) *Users {
	return &Users{db: db, now: now, cached: map[id.User]cachedUser{}}
}

// SignedIn returns the user of a valid token, and makes it at the first.
//
// A name in the token becomes the display name, and a token without one changes none. The role becomes the token's: one
// that no longer says admin takes that right away. What is written is durable on return. Of what is written elsewhere
// (another node, Ensure), the result may be up to five minutes behind. Errors are the database's.
func (u *Users) SignedIn(ctx context.Context, i Identity) (User, error) {
	user, ok := u.fromCache(i.User)
	if ok && !news(user, i) {
		return user, nil
	}
	read := u.now()
	user, found, err := u.read(ctx, i.User)
	if err == nil && (!found || news(user, i)) {
		user, err = u.write(ctx, i)
	}
	if err != nil {
		return User{}, fmt.Errorf("auth: sign in: %w", err)
	}
	u.toCache(user, read)
	return user, nil
}

// news reports whether the token says anything that the row does not.
func news(u User, i Identity) bool {
	return i.Name != "" && i.Name != u.DisplayName || i.Role != u.Role
}

// Get returns one user. Errors: [problem.NotFound], and the database's.
func (u *Users) Get(ctx context.Context, user id.User) (User, error) {
	row, found, err := u.read(ctx, user)
	if err != nil {
		return User{}, fmt.Errorf("auth: user: %w", err)
	}
	if !found {
		return User{}, problem.New(problem.NotFound, "User not found")
	}
	return row, nil
}

func (u *Users) fromCache(user id.User) (User, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c, ok := u.cached[user]
	return c.user, ok && u.now().Sub(c.read) < cachedAge
}

func (u *Users) toCache(user User, read time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.cached[user.ID]; !ok && len(u.cached) >= cachedMax {
		for other := range u.cached { // Any will do: the cost of a miss is one read.
			delete(u.cached, other)
			break
		}
	}
	u.cached[user.ID] = cachedUser{user, read}
}
