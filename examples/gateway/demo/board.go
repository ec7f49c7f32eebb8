package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch"
)

// A board knows all open pages, and sends them the state of the gateway.
type board struct {
	demo  *Demo
	first uint64 // the version with the demo's own routes: changes count from there

	mu       sync.Mutex
	tabs     map[*tab]struct{}
	visitors map[string]*visitor // by tab
	seen     uint64              // the last version
	recent   []second
	cut      int
	ended    []ended // the newest last
	told     []byte  // the last state
}

// A visitor is the owner of a tunnel. Its tab enters a workspace just before the
// tunnel opens, and leaves just before or after it has closed.
type visitor struct {
	person
	tunnel bool // there is or was one
}

// A state is what pages show of the gateway. It changes only with events: the
// pages count ages themselves.
type state struct {
	Changes uint64   `json:"changes"`
	Recent  []second `json:"recent"` // the times of recent changes
	Cut     int      `json:"cut"`    // sockets that were not ended by their tab
	Routes  int      `json:"routes"`
	Crowd   int      `json:"crowd"` // number of changes by the button still to come
	Sockets []socket `json:"sockets"`
	Ended   []ended  `json:"ended"`
}

// A second in which routes were changed, and how often.
type second struct {
	At int64 `json:"at"` // unix
	N  int   `json:"n"`
}

// A socket is an open tunnel.
type socket struct {
	Tunnel uint64 `json:"tunnel"`
	Tab    string `json:"tab"`
	Name   string `json:"name"`
	Hue    int    `json:"hue"`
	Path   string `json:"path"`
	Opened int64  `json:"opened"` // unix milliseconds
	Since  uint64 `json:"since"`  // number of changes before
}

// An ended socket, as its close report describes it.
type ended struct {
	Tunnel uint64         `json:"tunnel"`
	Name   string         `json:"name"`
	Hue    int            `json:"hue"`
	Path   string         `json:"path"`
	By     slipswitch.By  `json:"by"`
	How    slipswitch.How `json:"how"`
	Why    slipswitch.Why `json:"why"`
	Said   string         `json:"said"`   // in the Close frame of the side that ended it
	Closed int64          `json:"closed"` // unix milliseconds
	Lasted int64          `json:"lasted"` // milliseconds
	Lived  uint64         `json:"lived"`  // number of changes that it survived
	Bytes  int64          `json:"bytes"`  // both ways
}

const (
	lookBack   = 2 * time.Minute
	maxEnded   = 8
	stateEvery = 200 * time.Millisecond
)

func (b *board) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Header.Get("X-Forwarded-Prefix") == "": // the gateway's root page
		w.Header().Set("Location", boardPath[1:]+"/")
		w.WriteHeader(http.StatusFound)
	case r.URL.Path == "/":
		servePage(w, "board.html", map[string]string{"Ada": adaPath, "Grace": gracePath})
	case r.URL.Path == "/socket":
		serveSocket(w, r, b, gallery{})
	default:
		serveAsset(w, r)
	}
}

// A gallery is the room of tabs that only watch.
type gallery struct{}

func (gallery) join(*tab)                    {}
func (gallery) leave(*tab)                   {}
func (gallery) receive(*tab, received) error { return nil }

// watch sends the state to all pages when it has changed.
func (b *board) watch() {
	tick := time.NewTicker(stateEvery)
	defer tick.Stop()
	for {
		select {
		case <-b.demo.ctx.Done():
			return
		case <-tick.C:
		}
		b.mu.Lock()
		if now := encode(b.state()); !bytes.Equal(now, b.told) {
			b.told = now
			message := stateMessage(now)
			for t := range b.tabs {
				t.sendEncoded(message)
			}
		}
		b.mu.Unlock()
	}
}

func stateMessage(state []byte) []byte {
	return encode(struct {
		Type  string          `json:"type"`
		Now   int64           `json:"now"` // unix milliseconds, by the same clock as all other times
		State json.RawMessage `json:"state"`
	}{"state", time.Now().UnixMilli(), state})
}

// state returns the state of the gateway. The lock is held.
func (b *board) state() state {
	table := b.demo.Router.Table()
	now := time.Now()
	if n := table.Version() - max(b.seen, b.first); n > 0 {
		b.seen = table.Version()
		if last := len(b.recent) - 1; last >= 0 && b.recent[last].At == now.Unix() {
			b.recent[last].N += int(n)
		} else {
			b.recent = append(b.recent, second{now.Unix(), int(n)})
		}
	}
	b.recent = slices.DeleteFunc(b.recent, func(s second) bool { return s.At < now.Add(-lookBack).Unix() })
	s := state{
		Changes: table.Version() - b.first,
		Recent:  append([]second{}, b.recent...), // never null
		Cut:     b.cut,
		Routes:  table.Len(),
		Crowd:   b.demo.crowd.left(),
		Sockets: []socket{},
		Ended:   append([]ended{}, b.ended...),
	}
	for t := range b.demo.Proxy.Tunnels() {
		v, _ := t.Value().(*visitor)
		if v == nil {
			continue
		}
		s.Sockets = append(s.Sockets, socket{t.ID(), v.Tab, v.Name, v.Hue, t.Route().Path,
			t.Opened().UnixMilli(), max(t.Version(), b.first) - b.first})
	}
	return s
}

// visitor returns the visitor with a tab, and creates it if there is none. The
// lock is held.
func (b *board) visitor(tab string) *visitor {
	v := b.visitors[tab]
	if v == nil {
		v = &visitor{person: person{Tab: tab}}
		if b.visitors == nil {
			b.visitors = make(map[string]*visitor)
		}
		b.visitors[tab] = v
	}
	return v
}

// opens returns the visitor whose tunnel is about to open.
func (b *board) opens(tab string) *visitor {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.visitor(tab)
	v.tunnel = true
	return v
}

// enter makes a tab get the state from now on, and names it: by its former name,
// if that is free.
func (b *board) enter(t *tab, id, name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := person{Tab: id, Name: name}
	p.Hue = slices.Index(names, name)
	if p.Hue < 0 || b.taken(name) {
		p.Hue = slices.IndexFunc(names, func(name string) bool { return !b.taken(name) })
		p.Hue = max(p.Hue, 0) // all hues are taken: the first is used again
		p.Name = names[p.Hue]
	}
	p.Hue = p.Hue * 137 % 360 // near the golden angle, so that neighbours differ most
	b.visitor(id).person = p
	if b.tabs == nil {
		b.tabs = make(map[*tab]struct{})
	}
	b.tabs[t] = struct{}{}
	t.person = p
	t.sendEncoded(stateMessage(encode(b.state())))
}

func (b *board) taken(name string) bool {
	for t := range b.tabs {
		if t.person.Name == name {
			return true
		}
	}
	return false
}

func (b *board) leave(t *tab) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.tabs, t)
	if id := t.person.Tab; !b.visitor(id).tunnel {
		delete(b.visitors, id) // it came without a gateway
	}
}

// tunnelClosed keeps the latest reports.
func (b *board) tunnelClosed(r slipswitch.CloseReport) {
	v, _ := r.Value.(*visitor)
	if v == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.visitors, v.Tab)
	if r.By != "client" {
		b.cut++
	}
	b.ended = append(b.ended, ended{r.Tunnel, v.Name, v.Hue, r.Route.Path, r.By, r.How, r.Why, said(r),
		r.Closed.UnixMilli(), r.Closed.Sub(r.Opened).Milliseconds(),
		r.CloseVersion - max(r.OpenVersion, b.first), r.ClientBytes + r.UpstreamBytes})
	b.ended = b.ended[max(len(b.ended)-maxEnded, 0):]
}

// said returns the text of the Close frame of the peer that ended its tunnel.
func said(r slipswitch.CloseReport) string {
	frame := map[slipswitch.By]*slipswitch.CloseFrame{slipswitch.ByClient: r.ClientClose, slipswitch.ByUpstream: r.UpstreamClose}[r.By]
	if frame == nil || r.How != slipswitch.HowCloseFrame {
		return ""
	}
	return strings.TrimSpace(fmt.Sprint(frame.Code, " ", frame.Reason))
}

// names are given to tabs in this order.
var names = []string{
	"Ada", "Grace", "Edsger", "Barbara", "Donald", "Radia", "Ken", "Frances", "Dennis", "Margaret", "Leslie", "Hedy",
	"Niklaus", "Karen", "Alan", "Jean", "Tony", "Lynn", "John", "Sophie", "Robin", "Adele", "Rob", "Shafi",
}
