package canon_test

import (
	"net/url"
	"testing"

	"github.com/slipswitch/slipswitch/internal/canon"
)

func TestRawPath(t *testing.T) {
	for target, want := range map[string]string{
		"/a/b": "/a/b", "/%61/%2F;%3b": "/%61/%2F;%3b", "/a%20b?c": "/a%20b", "//a": "//a", "/a|b": "/a|b", "/{1}": "/{1}", "": "",
	} {
		u, err := url.ParseRequestURI("http://host" + target)
		if err != nil {
			t.Fatal(err)
		}
		if got := canon.RawPath(u); got != want {
			t.Errorf("%s: got %s; want %s", target, got, want)
		}
	}
	u := &url.URL{Path: "/b c/d", RawPath: "/a/b%20c%2Fd"} // a handler has stripped /a of Path alone
	if got, want := canon.RawPath(u), "/b%20c/d"; got != want {
		t.Errorf("got %s; want %s", got, want)
	}
}
