package slipswitch

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch/internal/dial"
	"github.com/slipswitch/slipswitch/internal/headers"
	"github.com/slipswitch/slipswitch/internal/http1"
)

// An Error says why a request got no response from an upstream. Its statuses:
//
//	400  the request's target, header, body or WebSocket handshake is invalid
//	403  Route.SameOrigin refuses the Origin of a handshake
//	404  no route matches, or a template may not capture what the request has
//	405  CONNECT or TRACE
//	408  the body was late: see Route.BodyTimeout
//	413  the body is longer than Route.MaxBody
//	426  a WebSocket version other than 13
//	500  Middleware passed on a request that cannot be forwarded
//	501  the http.ResponseWriter cannot be hijacked
//	502  no upstream could be reached, or its response was invalid
//	503  the gateway is shutting down, over a limit, short of descriptors, or
//	     has no routes yet; or the upstream is asleep
//	504  the upstream did not answer in time
//	508  the request has passed eight gateways of this kind: a loop
//
// A hook, such as Proxy.DialContext or a [Resolver], may return an Error of its
// own. If its Status is not from 400 to 599, the request is answered with 502,
// or with 504 if Err is a timeout.
type Error struct {
	Status     int           // from 400 to 599
	Reason     string        // for the client: short, and without any address
	RetryAfter time.Duration // for the client; zero: the response has no Retry-After
	Err        error         // for the log; may be nil
}

// errExpected is the Err of requests without a route while routes are expected.
var errExpected = fmt.Errorf("%w yet", ErrNoRoute)

func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("slipswitch: %d: %s", e.Status, e.Reason)
	}
	return fmt.Sprintf("slipswitch: %d: %s: %v", e.Status, e.Reason, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

func badRequest(field, value string, err error) *Error {
	return &Error{Status: http.StatusBadRequest, Reason: "bad request target", Err: fmt.Errorf("%s %.64q %w", field, value, err)}
}

// errorOf returns any error of a request as the client is to see it.
func errorOf(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok && e.Status >= 400 && e.Status < 600 { // a caller's may have any
		return e
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &Error{Status: http.StatusRequestEntityTooLarge,
			Reason: fmt.Sprintf("the body is longer than %d bytes", tooLarge.Limit), Err: err}
	}
	_, dialing := errors.AsType[*dial.Error](err)
	timeout, ok := errors.AsType[net.Error](err)
	_, invalid := errors.AsType[*http1.RequestError](err)
	switch {
	case errors.Is(err, errBodyTimeout):
		return &Error{Status: http.StatusRequestTimeout, Reason: "the request's body has not come in time", Err: err}
	case errors.Is(err, ErrNoRoute):
		return &Error{Status: http.StatusNotFound, Reason: "no route", Err: err}
	case invalid:
		return &Error{Status: http.StatusInternalServerError, Reason: "internal error", Err: err}
	case errors.Is(err, http1.ErrHeaderTimeout), errors.Is(err, http1.ErrStallTimeout), errors.Is(err, context.DeadlineExceeded),
		ok && timeout.Timeout():
		return &Error{Status: http.StatusGatewayTimeout, Reason: "the upstream did not answer in time", Err: err}
	case dialing:
		return &Error{Status: http.StatusBadGateway, Reason: "the upstream cannot be reached", Err: err}
	}
	return &Error{Status: http.StatusBadGateway, Reason: "the upstream's answer is invalid", Err: err}
}

// proxyStatus maps a status to the error type of RFC 9209 §2.3.
var proxyStatus = map[int]string{
	http.StatusBadRequest:            "http_request_error",
	http.StatusForbidden:             "http_request_denied",
	http.StatusNotFound:              "destination_not_found",
	http.StatusMethodNotAllowed:      "http_request_denied",
	http.StatusRequestTimeout:        "http_request_error",
	http.StatusRequestEntityTooLarge: "http_request_denied",
	http.StatusUpgradeRequired:       "http_request_denied",
	http.StatusInternalServerError:   "proxy_internal_error",
	http.StatusNotImplemented:        "proxy_configuration_error",
	http.StatusBadGateway:            "destination_unavailable",
	http.StatusServiceUnavailable:    "proxy_internal_response",
	http.StatusGatewayTimeout:        "http_response_timeout",
	http.StatusLoopDetected:          "proxy_loop_detected",
}

// fail answers a request that got no answer from an upstream.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeFrom(r.Context())
	if x != nil && x.body.isLate() {
		err = errBodyTimeout // whose end the server takes for the client's
	} else if errors.Is(r.Context().Err(), context.Canceled) {
		cut(w)
		panic(http.ErrAbortHandler) // the client has left
	} else if x != nil && x.sent.fault() != nil {
		err = &Error{Status: http.StatusBadRequest, Reason: "the request's body is invalid", Err: x.sent.fault()}
	}
	e := errorOf(err)
	if e.Status >= 500 && !errors.Is(e, ErrAsleep) && !errors.Is(e, errExpected) && !isUntold(e) {
		p.failures.log(p.log(), "slipswitch: request failed", r, e.Status, e.Err)
	}
	header := w.Header()
	header.Del("Content-Length") // of the answer that Middleware had in mind
	header.Del("Content-Encoding")
	header.Set("Proxy-Status", "slipswitch; error="+cmp.Or(proxyStatus[e.Status], "proxy_internal_response"))
	header.Set("Cache-Control", "no-store")
	switch e.Status {
	case http.StatusUpgradeRequired:
		header.Set("Sec-WebSocket-Version", "13")
		header.Set("Connection", "upgrade") // Upgrade is for the next hop (RFC 9110 §7.8)
		header.Set("Upgrade", "websocket")
	case http.StatusMethodNotAllowed:
		header.Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	}
	if e.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(seconds(e.RetryAfter)))
	}
	if p.ErrorHandler != nil {
		p.ErrorHandler(w, r, e)
		return
	}
	writeError(w, r, e)
}

// seconds rounds up.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// writeError answers in the form the client likes best.
func writeError(w http.ResponseWriter, r *http.Request, e *Error) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	switch prefer(r.Header["Accept"], "text/html", "application/json") {
	case "text/html":
		header.Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(e.Status)
		page := struct {
			Title, Reason string
			Reload        int // in seconds; 0: never
		}{fmt.Sprint(e.Status, " ", http.StatusText(e.Status)), e.Reason, 0}
		if errors.Is(e, ErrAsleep) && r.Method == http.MethodGet {
			page.Title, page.Reload = "Waking up", seconds(e.RetryAfter)
		}
		errorPage.Execute(w, page)
	case "application/json":
		header.Set("Content-Type", "application/json")
		w.WriteHeader(e.Status)
		json.NewEncoder(w).Encode(struct {
			Status int    `json:"status"`
			Error  string `json:"error"`
		}{e.Status, e.Reason})
	default:
		header.Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(e.Status)
		fmt.Fprintf(w, "%d %s: %s\n", e.Status, http.StatusText(e.Status), e.Reason)
	}
}

// prefer returns the first of some media types that an Accept field names with
// the highest quality (RFC 9110 §12.5.1); "" if it names none, or only to refuse
// it.
func prefer(accept []string, mediaTypes ...string) (best string) {
	highest := 0.
	for _, mediaType := range mediaTypes {
		for element := range headers.Tokens(accept) {
			name, parameters, _ := strings.Cut(element, ";")
			if !headers.EqualFold(strings.TrimSpace(name), mediaType) {
				continue
			}
			if q := quality(parameters); q > highest {
				best, highest = mediaType, q
			}
		}
	}
	return best
}

// quality returns the weight among some parameters, from 0 to 1. One that is not
// valid is 0.
func quality(parameters string) float64 {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(parameter, "=")
		if !headers.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		value = strings.TrimSpace(value)
		if q, err := strconv.ParseFloat(value, 64); err == nil && len(value) <= len("0.000") && q >= 0 && q <= 1 {
			return q
		}
		return 0
	}
	return 1
}

var errorPage = template.Must(template.New("error").Parse(`<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
{{with .Reload}}<meta http-equiv="refresh" content="{{.}}">
{{end}}<title>{{.Title}}</title>
<style>
	body { font: 1rem/1.5 system-ui, sans-serif; margin: 20vh auto 0; max-width: 32rem; padding: 0 1rem; color: #24292f; background: #fff }
	h1 { font-size: 1.25rem; margin: 0 } p { margin: .25rem 0; color: #57606a }
	@media (prefers-color-scheme: dark) { body { color: #e6edf3; background: #0d1117 } p { color: #8b949e } }
</style>
<h1>{{.Title}}{{if .Reload}}…{{end}}</h1>
<p>{{.Reason}}{{if .Reload}}. This page looks again by itself.{{end}}</p>
</html>
`))

// A RouteError says what is wrong with one field of one change.
type RouteError struct {
	Index int    `json:"index"` // of the change in its batch, from 0
	Owner string `json:"owner,omitempty"`
	Key   Key    `json:"key"` // as the change has it
	FieldError
}

func (e *RouteError) Error() string {
	return fmt.Sprintf("slipswitch: change %d: route %.80q: %v", e.Index, e.Key, &e.FieldError)
}

// Unwrap returns the field error.
func (e *RouteError) Unwrap() error { return &e.FieldError }

// A BatchError has all errors of a batch, of which nothing was applied.
type BatchError struct{ Routes []*RouteError }

func (e *BatchError) Error() string { return errors.Join(e.Unwrap()...).Error() }

// Unwrap returns the route errors.
func (e *BatchError) Unwrap() []error {
	errs := make([]error, len(e.Routes))
	for i, err := range e.Routes {
		errs[i] = err
	}
	return errs
}
