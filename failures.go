package slipswitch

import (
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/internal/canon"
)

// failures are what the log is told of requests. Clients decide how many there
// are, and what they look like, so of each status it gets ten a second, a hundred
// of them at once, and of each value the beginning.
type failures struct {
	mu    sync.Mutex
	lines map[int]*lines // by status
}

// lines are those of a status.
type lines struct {
	may     float64 // how many may be logged
	at      time.Time
	omitted int
}

const (
	linesPerSecond = 10
	linesAtOnce    = 100
	maxLogged      = 256     // bytes of a value
	maxLoggedError = 4 << 10 // of an error, which may have a stack
)

// pass reports whether to log one more line, and how many were left out before it.
func (f *failures) pass(status int) (omitted int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.lines[status]
	if l == nil {
		if f.lines == nil {
			f.lines = make(map[int]*lines)
		}
		l = &lines{may: linesAtOnce}
		f.lines[status] = l
	}
	now := time.Now()
	l.may = min(linesAtOnce, l.may+now.Sub(l.at).Seconds()*linesPerSecond)
	l.at = now
	if l.may < 1 {
		l.omitted++
		return 0, false
	}
	l.may--
	omitted, l.omitted = l.omitted, 0
	return omitted, true
}

// log logs what has become of a request.
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

// clipped returns the beginning of a text.
func clipped(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
