package slipswitch

import (
	"errors"
	"maps"
	"net/http"
	"sync"
	"time"
)

// hits counts how often each limit was reached.
type hits struct {
	mu     sync.Mutex
	counts map[string]uint64
	told   map[string]time.Time // when each was last logged
}

// tellEvery is the least time between two log records for one limit: clients decide
// how often they reach it.
const tellEvery = 10 * time.Second

// note counts one refusal by a limit, and reports whether to log it.
func (h *hits) note(limit string) (tell bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.counts == nil {
		h.counts, h.told = make(map[string]uint64), make(map[string]time.Time)
	}
	h.counts[limit]++
	now := time.Now()
	if last, ok := h.told[limit]; ok && now.Sub(last) < tellEvery {
		return false
	}
	h.told[limit] = now
	return true
}

// LimitsHit returns how many requests, connections and reports each limit has
// refused or dropped so far. The names are those of the fields of [Limits], such
// as "requestsPerClient", and
//
//	descriptors     connections, by Limits.SpareDescriptors
//	waiting         requests, by Resolver.MaxWaiting
//	waitingPerCall  requests, by Resolver.MaxWaitingPerCall
//	bodyTimeout     requests, by Route.BodyTimeout
//	dropping        connections of clients answered while they still sent, which were
//	                closed at once since too many others were being read to their end
//	reports         close reports that Proxy.TunnelClosed was not given
//
// A limit that was never reached is not in the map. Each is logged once in 10 s at
// most.
func (p *Proxy) LimitsHit() map[string]uint64 {
	p.hits.mu.Lock()
	defer p.hits.mu.Unlock()
	return maps.Clone(p.hits.counts)
}

// A limitError is the Error.Err of a request that a limit refuses.
type limitError struct {
	limit string // its name in LimitsHit
	tell  bool   // whether to log it
}

func (e *limitError) Error() string { return "the limit " + e.limit + " is reached" }

// isUntold reports whether an error is about a limit that was logged just now.
func isUntold(err error) bool {
	e, ok := errors.AsType[*limitError](err)
	return ok && !e.tell
}

// overLimit counts a refusal by a limit, and returns its 503.
func (p *Proxy) overLimit(limit, reason string, retry time.Duration) *Error {
	return &Error{Status: http.StatusServiceUnavailable, Reason: reason, RetryAfter: retry,
		Err: &limitError{limit, p.hits.note(limit)}}
}
