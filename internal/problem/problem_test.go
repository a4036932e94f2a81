package problem

import (
	"errors"
	"fmt"
	"testing"
)

func TestOfShowsOnlyWhatMayBeShown(t *testing.T) {
	nf := New(NotFound, ConversationNotFound)
	e, shown := Of(fmt.Errorf("chat: send: %w", nf))
	if !shown || e != nf || e.Code.Status() != 404 {
		t.Errorf("Of(wrapped) = %v, %v", e, shown)
	}
	e, shown = Of(errors.New("disk on fire at /secret"))
	if shown || e.Code != Internal || e.Message == "disk on fire at /secret" {
		t.Errorf("Of(plain) = %v, %v", e, shown)
	}
	if !errors.Is(fmt.Errorf("x: %w", New(NotFound, ConversationNotFound)), nf) {
		t.Error("two errors of one code and message are not the same")
	}
}

func TestEveryCodeHasAStatus(t *testing.T) {
	for c, s := range statuses {
		if s < 400 || s > 599 {
			t.Errorf("%s has the status %d", c, s)
		}
	}
}
