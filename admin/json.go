package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/slipswitch/slipswitch"
)

// Bounds of a body, whatever its length: a deeper or longer one is an attack on
// our stack or memory.
const (
	maxDepth    = 64
	maxElements = 1_000_000 // of one array or object
)

// A problem is the answer to a request that fails.
type problem struct {
	Status  int                      `json:"status"`
	Text    string                   `json:"error"`
	Invalid []*slipswitch.RouteError `json:"invalid,omitempty"` // all errors in the body
}

func (p *problem) Error() string { return p.Text }

// badRequest names the parameter or field that is wrong, and what is right.
func badRequest(field, value, want string) *problem {
	return &problem{Status: http.StatusBadRequest, Text: fmt.Sprintf("%s %.64q %s", field, value, want)}
}

// notAllowed answers a method that an endpoint does not support.
func notAllowed[V any](w http.ResponseWriter, methods map[string]V, hint string) *problem {
	var allow []string
	for method := range methods {
		allow = append(allow, method)
	}
	slices.Sort(allow)
	w.Header().Set("Allow", strings.Join(allow, ", "))
	return &problem{Status: http.StatusMethodNotAllowed, Text: "the method must be " + strings.Join(allow, " or ") + hint}
}

func (p *problem) writeJSON(w http.ResponseWriter) {
	writeJSON(w, p.Status, p)
}

func (p *problem) writeText(w http.ResponseWriter) {
	if p.Text != "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	w.WriteHeader(p.Status)
	io.WriteString(w, p.Text)
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(value)
}

// readBody reads a body of at most limit bytes.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, *problem) {
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, tooLarge(limit)
	}
	if err != nil {
		return nil, &problem{Status: http.StatusBadRequest, Text: "the body ended before it was complete"}
	}
	w.Header().Del("Connection")
	return body, nil
}

func tooLarge(limit int64) *problem {
	return &problem{Status: http.StatusRequestEntityTooLarge, Text: fmt.Sprintf("the body must be at most %d bytes long", limit)}
}

// readJSON reads a body, whose type and content must be JSON.
func readJSON(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, *problem) {
	if field := r.Header.Get("Content-Type"); field != "application/json" { // the usual spelling
		if kind, _, err := mime.ParseMediaType(field); err != nil || kind != "application/json" {
			return nil, &problem{Status: http.StatusUnsupportedMediaType, Text: fmt.Sprintf("Content-Type %.64q must be application/json", field)}
		}
	}
	body, wrong := readBody(w, r, limit)
	if wrong != nil {
		return nil, wrong
	}
	if err := checkJSON(body, true); err != nil {
		return nil, &problem{Status: http.StatusBadRequest, Text: "the body " + err.Error()}
	}
	return body, nil
}

// checkJSON refuses data that is not one JSON value, or that two parsers could
// read differently: a second value after it, invalid UTF-8, a key that an object
// has twice. With fold, keys are compared without case, as encoding/json does,
// except in labels and meta. Errors continue a sentence that begins with "the
// body".
func checkJSON(data []byte, fold bool) error {
	if !utf8.Valid(data) {
		return errors.New("must be UTF-8")
	}
	if !json.Valid(data) {
		return syntaxError(data)
	}
	_, err := checkValue(data, fold, 0)
	return err
}

// syntaxError returns the error for data that is not valid JSON.
func syntaxError(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	var first json.RawMessage
	err := decoder.Decode(&first)
	switch wrong, _ := errors.AsType[*json.SyntaxError](err); {
	case err == nil:
		return fmt.Errorf("must be one JSON value: more follows at byte %d", decoder.InputOffset()+1)
	case wrong == nil:
		return fmt.Errorf("must be a whole JSON value: it ends at byte %d", len(data))
	default:
		return fmt.Errorf("must be JSON: %w at byte %d", wrong, wrong.Offset)
	}
}

// checkValue checks the value at the start of data, and returns the rest.
func checkValue(data []byte, fold bool, depth int) (rest []byte, err error) {
	keyed := isObject(data)
	if !keyed && !isArray(data) {
		_, rest = cutValue(data)
		return rest, nil
	}
	if depth++; depth > maxDepth {
		return nil, fmt.Errorf("must not be nested deeper than %d levels", maxDepth)
	}
	n, keys := 0, make(map[string]struct{})
	return eachMember(data, func(key string, value []byte) (rest []byte, err error) {
		if n++; n > maxElements {
			return nil, fmt.Errorf("must have at most %d elements in an array or object", maxElements)
		}
		below := fold
		if keyed {
			folded := key
			if fold {
				folded = foldKey(key)
				below = folded != "labels" && folded != "meta"
			}
			if _, twice := keys[folded]; twice {
				return nil, fmt.Errorf("must not have the key %.64q twice in one object", key)
			}
			keys[folded] = struct{}{}
		}
		return checkValue(value, below, depth)
	})
}

// foldKey returns equal strings for keys that encoding/json takes for equal.
func foldKey(key string) string {
	if strings.ContainsFunc(key, func(r rune) bool { return r >= utf8.RuneSelf }) {
		key = strings.ToUpper(key) // this folds ſ to s, too
	}
	return strings.ToLower(key)
}
