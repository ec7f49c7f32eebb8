package routes

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/slipswitch/slipswitch"
)

// A router is a peer. To add one, write a file with a table of it, and add it
// to routers.
type router struct {
	name string
	how  string // what is called for a lookup, and how hosts are told apart
	new  func() table
}

// routers are all, in the order of the tables.
var routers = []router{slipswitchRouter, mapRouter, trieRouter, serveMuxRouter, httprouterRouter, chiRouter, bunrouterRouter, ginRouter, echoRouter}

func routerOf(name string) (router, error) {
	i := slices.IndexFunc(routers, func(r router) bool { return r.name == name })
	if i < 0 {
		return router{}, fmt.Errorf("there is no router %q", name)
	}
	return routers[i], nil
}

// A route leads a prefix of whole segments to a number.
type route struct {
	host string // any if empty
	path string // without a slash at the end
	n    int
}

// A table is a router with routes. Many may look up at a time, but nothing else
// may go on then, if it is not live.
type table interface {
	put(r route) error // panics are errors, too

	// lookup finds the route for a request and leaves its number in the asker.
	lookup(a *asker, host, path string) bool
}

// A live table can be changed while others look up.
type live interface {
	table
	remove(r route)
}

// A batcher takes many routes at once more cheaply than one by one.
type batcher interface {
	putAll(list []route) error
}

// An asker is one of those who look up. Routers that take a request get always
// the same one, with another path: to make requests is not what is measured.
type asker struct {
	request *http.Request
	nobody  nobody
	n       int              // what a handler was registered for
	match   slipswitch.Match // what slipswitch has found, in place of n
}

func newAsker() *asker {
	a := &asker{nobody: nobody{}}
	a.request = &http.Request{Method: "GET", URL: &url.URL{}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: body{a}}
	return a
}

func (a *asker) ask(host, path string) *http.Request {
	a.request.Host, a.request.URL.Path = host, path
	return a.request
}

// A body is how a handler finds out who has asked: routers wrap the writer and
// the context, but nobody touches a body.
type body struct{ *asker }

func (body) Read([]byte) (int, error) { return 0, nil }
func (body) Close() error             { return nil }

// reached is what each handler does.
func reached(r *http.Request, n int) { r.Body.(body).n = n }

// nobody is a writer for no answer.
type nobody struct{}

func (nobody) Header() http.Header         { return http.Header{} }
func (nobody) Write(p []byte) (int, error) { return len(p), nil }
func (nobody) WriteHeader(int)             {}

// A hostSwitch puts a map of hosts in front of routers that know only paths, as
// the documentation of httprouter shows it.
type hostSwitch struct {
	new   func() table
	any   table
	hosts map[string]table
}

func byHost(new func() table) func() table {
	return func() table { return &hostSwitch{new: new, any: new(), hosts: map[string]table{}} }
}

func (h *hostSwitch) put(r route) error {
	if r.host == "" {
		return h.any.put(r)
	}
	t := h.hosts[r.host]
	if t == nil {
		t = h.new()
		h.hosts[r.host] = t
	}
	return t.put(r)
}

func (h *hostSwitch) lookup(a *asker, host, path string) bool {
	if len(h.hosts) > 0 {
		if t := h.hosts[host]; t != nil {
			return t.lookup(a, host, path)
		}
	}
	return h.any.lookup(a, host, path)
}
