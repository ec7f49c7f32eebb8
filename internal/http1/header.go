package http1

import (
	"bytes"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxInterim bounds how many responses may be interim; maxFields bounds one
// header, of which short fields would make forty times their bytes.
const (
	maxInterim = 1 << 10
	maxFields  = 10_000
)

var (
	errFields   = &ProtocolError{"has a header of more than " + strconv.Itoa(maxFields) + " fields"}
	errInterim  = &ProtocolError{"comes after more than " + strconv.Itoa(maxInterim) + " interim ones"}
	errBareLF   = &ProtocolError{"has a line that ends without CR"}
	errStatus   = &ProtocolError{"does not begin with a status line of HTTP/1.0 or HTTP/1.1"}
	errField    = &ProtocolError{"has a malformed field"}
	errCoding   = &ProtocolError{"has a Transfer-Encoding other than chunked"}
	errTwoWays  = &ProtocolError{"has both Content-Length and Transfer-Encoding"}
	errLength   = &ProtocolError{"has a Content-Length that is not one number"}
	errChunk    = &ProtocolError{"has a malformed chunk"}
	errPadding  = &ProtocolError{"has more chunk headers than data"}
	errTrailer  = &ProtocolError{"announces a trailer that must not be one"}
	errFramed   = &ProtocolError{"has a Transfer-Encoding, or no single Content-Length, where no body is"}
	errSwitched = &ProtocolError{"switches protocols unasked"}
)

func errTooLong(most int) error {
	return &ProtocolError{"has a header longer than " + strconv.Itoa(most) + " bytes"}
}

const proto = "HTTP/1."

func mayBeStatus(begin []byte) bool {
	n := min(len(begin), len(proto))
	return string(begin[:n]) == proto[:n]
}

// parseStatus reads a status line, without its end.
func parseStatus(line []byte) (minor, status int, err error) {
	if len(line) < len("HTTP/1.1 200") || string(line[:len(proto)]) != proto || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return 0, 0, errStatus
	}
	minor = int(line[7]) - '0'
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return 0, 0, errStatus
		}
		status = 10*status + int(c-'0')
	}
	if minor != 0 && minor != 1 || status < 100 || !isValue(line[12:]) {
		return 0, 0, errStatus
	}
	return minor, status, nil
}

// parseFields reads lines that each end with CRLF. It writes their names in
// canonical spelling into the block itself, so that the names and values can be
// parts of one string. The first fields' values are kept in slots.
func parseFields(block []byte, slots []string) (http.Header, error) {
	n := 0
	for rest := block; len(rest) > 0; n++ {
		end := bytes.IndexByte(rest, '\n')
		line := rest[:end-1]
		rest = rest[end+1:]
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 || !canonicalize(line[:colon]) || !isValue(line[colon+1:]) {
			return nil, errField
		}
	}
	if n > maxFields {
		return nil, errFields
	}
	header := make(http.Header, n)
	if n > len(slots) {
		slots = make([]string, n)
	}
	for rest := string(block); len(rest) > 0; slots = slots[1:] {
		colon := strings.IndexByte(rest, ':')
		end := strings.IndexByte(rest, '\n')
		name, value := rest[:colon], trimSpace(rest[colon+1:end-1])
		rest = rest[end+1:]
		if before, ok := header[name]; ok {
			header[name] = append(before, value)
			continue
		}
		slots[0] = value
		header[name] = slots[:1:1]
	}
	return header, nil
}

// canonicalize spells a name as net/http does, and reports whether it is one.
func canonicalize(name []byte) bool {
	upper := true
	for i, c := range name {
		if class[c]&tokenByte == 0 {
			return false
		}
		switch {
		case upper && 'a' <= c && c <= 'z':
			name[i] = c - ('a' - 'A')
		case !upper && 'A' <= c && c <= 'Z':
			name[i] = c + ('a' - 'A')
		}
		upper = c == '-'
	}
	return true
}

// frame finds out where the body of a final response ends, and whether the
// connection may be used again (RFC 9112 §6.3, §9.3).
func (r *Response) frame() error {
	lengths, codings := r.Header["Content-Length"], r.Header["Transfer-Encoding"]
	r.ContentLength = -1
	if lengths != nil {
		if codings != nil {
			return errTwoWays
		}
		n, ok := parseLength(lengths[0])
		if !ok || len(lengths) > 1 {
			return errLength
		}
		r.ContentLength = n
	}
	if codings != nil && (len(codings) > 1 || !equalFold(codings[0], "chunked") || r.Minor == 0) {
		return errCoding
	}
	if codings != nil {
		if err := r.announce(); err != nil {
			return err
		}
	}
	connection := r.Header["Connection"]
	r.keep = r.request.Upgrade == "" && !hasToken(connection, "close") && (r.Minor == 1 || hasToken(connection, "keep-alive"))
	switch {
	case r.Status == http.StatusNoContent || r.Status == http.StatusSwitchingProtocols:
		if codings != nil || r.ContentLength > 0 {
			r.keep = false // there may be a body that must not be
		}
	case r.Status == http.StatusNotModified || r.request.Method == "HEAD":
	case codings != nil:
		r.chunked, r.next = true, chunkSize
	case lengths == nil:
		r.toClose, r.keep = true, false
		r.next, r.remaining = data, math.MaxInt64
	case r.ContentLength > 0:
		r.next, r.remaining = data, r.ContentLength
	}
	return nil
}

// frameInterim refuses a 1xx of which somebody could think that it has a body.
func (r *Response) frameInterim() error {
	if r.Header["Transfer-Encoding"] != nil {
		return errFramed
	}
	if lengths := r.Header["Content-Length"]; lengths != nil {
		if _, ok := parseLength(lengths[0]); !ok || len(lengths) > 1 {
			return errFramed
		}
	}
	return nil
}

// announce has the trailer know the names that are to come.
func (r *Response) announce() error {
	for _, value := range r.Header["Trailer"] {
		for name := range strings.SplitSeq(value, ",") {
			if name = trimSpace(name); name == "" {
				continue
			}
			switch name = http.CanonicalHeaderKey(name); {
			case name == "Content-Length" || name == "Transfer-Encoding" || name == "Trailer" || !isToken(name):
				return errTrailer
			case isFraming(name):
				continue // it does not pass
			}
			if r.Trailer == nil {
				r.Trailer = make(http.Header)
			}
			r.Trailer[name] = nil
		}
	}
	return nil
}

func parseLength(s string) (n int64, ok bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int64(s[i]-'0')
	}
	return n, true
}

// keepAlive returns how long an upstream says that it keeps an idle connection;
// zero if it does not say.
func keepAlive(values []string) time.Duration {
	for _, value := range values {
		for parameter := range strings.SplitSeq(value, ",") {
			if name, seconds, ok := strings.Cut(trimSpace(parameter), "="); ok && equalFold(name, "timeout") {
				if n, ok := parseLength(seconds); ok && n < 1<<30 {
					return time.Duration(n) * time.Second
				}
			}
		}
	}
	return 0
}
