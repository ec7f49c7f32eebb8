package demo

import (
	"errors"
	"strings"
	"testing"
)

func TestFile(t *testing.T) {
	for _, row := range []struct {
		name    string
		edit    edit
		want    string
		wantErr error
	}{
		{"insert", edit{0, []splice{{2, 0, "x"}}}, "abx👋c", nil},
		{"delete", edit{0, []splice{{0, 2, ""}}}, "👋c", nil},
		{"replace", edit{0, []splice{{2, 2, "👋👋"}}}, "ab👋👋c", nil},
		{"one after the other", edit{0, []splice{{0, 5, ""}, {0, 0, "new"}, {3, 0, "!"}}}, "new!", nil},
		{"all or none", edit{0, []splice{{0, 5, ""}, {1, 0, "x"}}}, "ab👋c", errSplice},
		{"nothing", edit{0, nil}, "ab👋c", errSplice},
		{"in front", edit{0, []splice{{-1, 0, "x"}}}, "ab👋c", errSplice},
		{"behind", edit{0, []splice{{6, 0, "x"}}}, "ab👋c", errSplice},
		{"too much", edit{0, []splice{{0, 6, ""}}}, "ab👋c", errSplice},
		{"less than nothing", edit{0, []splice{{3, -1, ""}}}, "ab👋c", errSplice},
		{"overflow", edit{0, []splice{{5, 1<<63 - 1, ""}}}, "ab👋c", errSplice},
		{"half a character", edit{0, []splice{{3, 0, "x"}}}, "ab👋c", errSplice},
		{"up to half a character", edit{0, []splice{{0, 3, ""}}}, "ab👋c", errSplice},
		{"too long", edit{0, []splice{{0, 0, strings.Repeat("x", maxFile)}}}, "ab👋c", errTooLong},
		{"stale", edit{-1, []splice{{0, 0, "x"}}}, "ab👋c", errStale},
	} {
		f := newFile("f", "ab👋c")
		err := f.apply(row.edit)
		if f.String() != row.want || !errors.Is(err, row.wantErr) || (f.version == 1) != (err == nil) {
			t.Errorf("%s: %q, version %d, %v; want %q, %v", row.name, f, f.version, err, row.want, row.wantErr)
		}
	}
}

func TestEditMoved(t *testing.T) {
	e := edit{0, []splice{{2, 3, "x"}, {0, 0, "👋"}}}
	for at, want := range []int{0, 3, 4, 5, 5, 5, 6} {
		if got := e.moved(at); got != want {
			t.Errorf("moved(%d) = %d; want %d", at, got, want)
		}
	}
}
