package http1

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A body in memory up to smallBody goes out with the header: both fit into an
// empty send buffer, so the write waits for nobody.
const smallBody = 4 << 10

// maxWaitless is how much a write may be of which nobody need be afraid that it
// waits. All systems' send buffers are larger, and empty between two requests.
const maxWaitless = 8 << 10

// A head is the bytes of a request's header, and of a small body.
type head struct{ b []byte }

var heads = sync.Pool{New: func() any { return &head{make([]byte, 0, 1<<10)} }}

func borrowHead() *head { return heads.Get().(*head) }

func (h *head) giveBack() {
	if cap(h.b) <= large {
		h.b = h.b[:0]
		heads.Put(h)
	}
}

// render writes the request, and reports whether its body is part of it.
func (h *head) render(q *Request) (inMemory bool, err error) {
	b, err := q.appendHead(h.b[:0])
	h.b = b
	if err != nil || q.ContentLength <= 0 || q.ContentLength > smallBody {
		return false, err
	}
	body, ok := q.Body.(interface{ Len() int })
	if !ok || int64(body.Len()) < q.ContentLength {
		return false, nil
	}
	h.b = slices.Grow(h.b, int(q.ContentLength))
	h.b = h.b[:len(b)+int(q.ContentLength)]
	if _, err := io.ReadFull(q.Body, h.b[len(b):]); err != nil {
		return false, &BodyError{err}
	}
	return true, nil
}

func (q *Request) appendHead(b []byte) ([]byte, error) {
	switch {
	case !isToken(q.Method) || q.Method == "CONNECT":
		return b, &RequestError{"has the method " + strconv.QuoteToASCII(clip(q.Method)) + ", which cannot be forwarded"}
	case !isTarget(q.Path) || q.Path == "" || !isTarget(q.RawQuery):
		return b, &RequestError{"has a path or query with spaces or control characters, or none"}
	case !isTarget(q.Host):
		return b, &RequestError{"has a Host with spaces or control characters"}
	case q.Upgrade != "" && (!isValue(q.Upgrade) || q.ContentLength != 0):
		return b, &RequestError{"asks for an upgrade with a body, or with a bad name"}
	case q.ContentLength < -1 || q.ContentLength != 0 && q.Body == nil:
		return b, &RequestError{"has a length without a body"}
	}
	b = append(b, q.Method...)
	b = append(b, ' ')
	b = append(b, q.Path...)
	if q.RawQuery != "" || q.ForceQuery {
		b = append(b, '?')
		b = append(b, q.RawQuery...)
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, q.Host...)
	b = append(b, "\r\n"...)
	if q.Upgrade != "" {
		b = append(b, "Connection: Upgrade\r\nUpgrade: "...)
		b = append(b, q.Upgrade...)
		b = append(b, "\r\n"...)
	}
	switch {
	case q.ContentLength > 0 || q.ContentLength == 0 && (q.Method == "POST" || q.Method == "PUT" || q.Method == "PATCH"):
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, q.ContentLength, 10)
		b = append(b, "\r\n"...)
	case q.ContentLength < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		for name := range q.Trailer {
			if isToken(name) && !isFraming(name) {
				b = append(b, "Trailer: "...)
				b = append(b, name...)
				b = append(b, "\r\n"...)
			}
		}
	}
	b, err := appendFields(b, q.Header)
	return append(b, "\r\n"...), err
}

// appendFields writes all fields but those that frame.
func appendFields(b []byte, header http.Header) ([]byte, error) {
	for name, values := range header {
		if isFraming(name) {
			continue
		}
		if !isToken(name) {
			return b, &RequestError{"has a field with a bad name, " + strconv.QuoteToASCII(clip(name))}
		}
		for _, value := range values {
			value = trimSpace(value)
			if !isValue(value) {
				return b, &RequestError{"has a control character in " + clip(name)}
			}
			if rest, ok := strings.CutPrefix(name, "Sec-Websocket-"); ok {
				b = append(b, "Sec-WebSocket-"...) // RFC 6455's spelling
				b = append(b, rest...)
			} else {
				b = append(b, name...)
			}
			b = append(b, ": "...)
			b = append(b, value...)
			b = append(b, "\r\n"...)
		}
	}
	return b, nil
}

// isFraming reports whether a field is the client's to write, in any spelling.
func isFraming(name string) bool {
	switch len(name) {
	case 4:
		return equalFold(name, "host")
	case 7:
		return equalFold(name, "upgrade") || equalFold(name, "trailer")
	case 10:
		return equalFold(name, "connection")
	case 14:
		return equalFold(name, "content-length")
	case 17:
		return equalFold(name, "transfer-encoding")
	}
	return false
}

func (q *Request) expectsContinue() bool {
	if q.ContentLength == 0 {
		return false
	}
	expect := q.Header["Expect"]
	return len(expect) > 0 && equalFold(trimSpace(expect[0]), "100-continue")
}

// clip bounds what an error quotes.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
