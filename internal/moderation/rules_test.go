package moderation

import "testing"

func TestJudge(t *testing.T) {
	r := NewRules([]string{"spam", " Abuse ", "Straße", ""})
	for text, flagged := range map[string]bool{
		"hello": false, "this is spam": true, "SPAM!": true, "antispam": false, "spams": false,
		"no-abuse-here": true, "ｓｐａｍ": true, "STRASSE": true, "": false, "  ": false, "(spam)": true,
	} {
		if v := r.Judge(text); v.Flagged != flagged || (v.Reason != "") != flagged {
			t.Errorf("Judge(%q) = %+v, want flagged %v", text, v, flagged)
		}
	}
	if v := new(Rules).Judge("spam"); v.Flagged {
		t.Error("the zero Rules flagged something")
	}
}
