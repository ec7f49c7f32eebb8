package admin

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"runtime/metrics"
	"time"

	"github.com/slipswitch/slipswitch/internal/canon"
	"github.com/slipswitch/slipswitch/store"
)

// status answers GET /v1/status.
func (h *Handler) status(w http.ResponseWriter, r *http.Request) *problem {
	if _, wrong := parameters(r); wrong != nil {
		return wrong
	}
	table := h.Router.Table()
	status := struct {
		Version    uint64            `json:"version"` // of the table
		Routes     int               `json:"routes"`  // shadowed ones not counted
		Tunnels    int               `json:"tunnels"`
		LimitsHit  map[string]uint64 `json:"limitsHit,omitempty"` // see Proxy.LimitsHit
		Ready      bool              `json:"ready"`
		NotReady   string            `json:"notReady,omitempty"` // why
		Draining   bool              `json:"draining"`
		Started    time.Time         `json:"started,omitzero"`
		Uptime     string            `json:"uptime,omitempty"`
		Stores     []store.Status    `json:"stores,omitempty"`
		Goroutines int               `json:"goroutines"` // of the whole program
		Heap       uint64            `json:"heap"`       // bytes in use at the last garbage collection
	}{Version: table.Version(), Routes: table.Len(), Draining: h.draining(), Goroutines: runtime.NumGoroutine()}
	if h.Proxy != nil {
		status.LimitsHit = h.Proxy.LimitsHit()
		for range h.Proxy.Tunnels() {
			status.Tunnels++
		}
	}
	heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(heap)
	status.Heap = heap[0].Value.Uint64()
	if err := h.notReady(); err != nil {
		status.NotReady = err.Error()
	}
	for _, s := range h.Stores {
		if s, ok := s.(statusStore); ok {
			status.Stores = append(status.Stores, s.Status())
		}
	}
	status.Ready = status.NotReady == ""
	if !h.Started.IsZero() {
		status.Started = h.Started.UTC()
		status.Uptime = time.Since(h.Started).Round(time.Second).String()
	}
	writeJSON(w, http.StatusOK, status)
	return nil
}

func (h *Handler) draining() bool { return h.Proxy != nil && h.Proxy.Draining() }

var (
	errDraining = errors.New("draining")
	errCrowded  = errors.New("the process is short of descriptors")
)

// notReady returns why no traffic should be sent here.
func (h *Handler) notReady() error {
	switch {
	case h.draining():
		return errDraining
	case h.Proxy != nil && h.Proxy.Crowded():
		return errCrowded
	}
	for _, s := range h.Stores {
		if s, ok := s.(statusStore); ok && !s.Status().Synced {
			return fmt.Errorf("the routes are not there yet: %s", cmp.Or(s.Status().Error, "the store is being read"))
		}
	}
	if h.Ready != nil {
		return h.Ready()
	}
	return nil
}

// Probes returns a handler that answers /livez and /readyz, and 404 to all else:
// for an address that load balancers and orchestrators reach, and the API is
// not at. It needs neither a token nor a known host.
func (h *Handler) Probes() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		prepare(w, r)
		if !h.probed(w, r) {
			http.NotFound(w, r)
		}
	})
}

// probed answers a probe, if the request is one.
func (h *Handler) probed(w http.ResponseWriter, r *http.Request) bool {
	switch canon.RawPath(r.URL) {
	case "/livez":
		h.livez(w, r)
	case "/readyz":
		h.readyz(w, r)
	default:
		return false
	}
	return true
}

// livez and readyz answer probes: without a token, and under any host. So they
// tell as little as possible.
func (h *Handler) livez(w http.ResponseWriter, r *http.Request) { probe(w, r, http.StatusOK, "ok") }

func (h *Handler) readyz(w http.ResponseWriter, r *http.Request) {
	switch err := h.notReady(); err {
	case nil:
		probe(w, r, http.StatusOK, "ok")
	case errDraining:
		probe(w, r, http.StatusServiceUnavailable, "draining")
	default:
		probe(w, r, http.StatusServiceUnavailable, "not ready")
	}
}

func probe(w http.ResponseWriter, r *http.Request, status int, text string) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		notAllowed(w, map[string]bool{"GET": true, "HEAD": true}, "").writeText(w)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, text+"\n")
}
