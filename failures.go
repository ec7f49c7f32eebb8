package slipswitch

import (
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/internal/canon"
)

// failures logs failed requests. Clients decide how many there are and what they
// contain. So for each status it logs at most ten a second, in bursts of at most a
// hundred, and only the beginning of each value.
type failures struct {
	mu    sync.Mutex
	lines map[int]*lines // by status
}

// lines is the token bucket of one status.
type lines struct {
	tokens  float64 // lines that may be logged, as of at
	at      time.Time
	omitted int // lines since the last one that was logged
}

const (
	linesPerSecond = 10
	linesAtOnce    = 100
	maxLogged      = 256     // bytes of a value
	maxLoggedError = 4 << 10 // bytes of an error, which may have a stack trace
)

// pass reports whether to log one more line, and how many were omitted before it.
func (f *failures) pass(status int) (omitted int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.lines[status]
	if l == nil {
		if f.lines == nil {
			f.lines = make(map[int]*lines)
		}
		l = &lines{tokens: linesAtOnce}
		f.lines[status] = l
	}
	now := time.Now()
	l.tokens = min(linesAtOnce, l.tokens+now.Sub(l.at).Seconds()*linesPerSecond)
	l.at = now
	if l.tokens < 1 {
		l.omitted++
		return 0, false
	}
	l.tokens--
	omitted, l.omitted = l.omitted, 0
	return omitted, true
}

// log logs a failed request, unless its status has no lines left.
func (f *failures) log(to *slog.Logger, message string, r *http.Request, status int, err error) {
	omitted, ok := f.pass(status)
	if !ok {
		return
	}
	attrs := []any{"host", clipped(r.Host, maxLogged), "path", clipped(canon.RawPath(r.URL), maxLogged), "status", status}
	if err != nil {
		attrs = append(attrs, "error", clipped(err.Error(), maxLoggedError))
	}
	if omitted > 0 {
		attrs = append(attrs, "omitted", omitted)
	}
	to.Warn(message, attrs...)
}

// clipped returns at most so many bytes of a text, with "…" after them if there
// are more.
func clipped(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
