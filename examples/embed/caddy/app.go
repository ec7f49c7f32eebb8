package caddyslipswitch

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/caddyserver/caddy/v2"
	"github.com/slipswitch/slipswitch"
)

func init() { caddy.RegisterModule(new(App)) }

// An App collects the handlers of one configuration. It needs no configuration of
// its own: Caddy creates it for the first handler, and starts and stops it with
// the configuration.
type App struct {
	wants map[string]*wants // by name
}

// wants are the combined settings of the handlers of one name.
type wants struct {
	shared *shared
	proxy  *slipswitch.Proxy // of one of them: REST lists its sockets
	routes []slipswitch.Route
	data   string
}

// CaddyModule implements caddy.Module.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "slipswitch", New: func() caddy.Module { return &App{wants: make(map[string]*wants)} }}
}

// join adds the settings of a handler to those of the other handlers of its name,
// and checks them, so that caddy validate reports errors.
func (a *App) join(h *Handler, trusted []netip.Prefix) error {
	w := a.wants[h.Name]
	if w == nil {
		s, _, err := pool.LoadOrNew(h.Name, newShared)
		if err != nil {
			return err
		}
		w = &wants{shared: s.(*shared)}
		a.wants[h.Name] = w
	}
	h.shared = w.shared
	h.proxy = w.shared.proxy(trusted)
	w.proxy = h.proxy
	if w.data == "" {
		w.data = h.Data
	}
	if h.Data != "" && h.Data != w.data {
		return fmt.Errorf("data %q must be %q, as for another slipswitch %q", h.Data, w.data, h.Name)
	}
	w.routes = append(w.routes, h.Routes...)
	changes := make([]slipswitch.Change, len(w.routes))
	keys := make(map[slipswitch.Key]bool)
	for i := range w.routes {
		changes[i].Put = &w.routes[i]
		keys[w.routes[i].Key()] = true
	}
	if err := (&slipswitch.Router{Validate: able}).Check(configured, changes...); err != nil {
		return err
	}
	if len(keys) < len(w.routes) {
		return fmt.Errorf("slipswitch %q has a route twice: the host, path and kind of each must be its own", h.Name)
	}
	return nil
}

// Start puts the routes into force, for each name in one swap.
func (a *App) Start() error {
	for name, w := range a.wants {
		if err := w.shared.begin(w); err != nil {
			return errors.Join(fmt.Errorf("slipswitch %q: %w", name, err), a.Stop())
		}
	}
	return nil
}

// Stop removes the routes, unless a later configuration has replaced them. If
// Caddy cannot start the rest of this configuration, the routes of the former one
// are in force again.
func (a *App) Stop() error {
	var errs []error
	for _, w := range a.wants {
		errs = append(errs, w.shared.end(w))
	}
	return errors.Join(errs...)
}

// Cleanup releases the shared parts. The last configuration to leave ends them.
func (a *App) Cleanup() error {
	var errs []error
	for name := range a.wants {
		_, err := pool.Delete(name)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

var (
	_ caddy.App          = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
