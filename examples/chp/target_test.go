package main_test

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// A seen is a request as a target has seen it, which is how it answers.
type seen struct {
	Method, URI, Host, Body string
	Name                    string // the target's
	Header                  http.Header
}

// A target is a server that tells what it sees, echoes messages, and does what
// the header X-Do says: "302 LOCATION", or another status, "cut" a body short,
// "hang", or a "flood".
type target struct {
	*httptest.Server
	name string
}

// flood is how many bytes a flood has.
const flood = 32 << 20

// startTarget starts a target at a free port or, with one, at a socket.
func startTarget(t testing.TB, name, socket string, secure bool, configure ...func(*tls.Config)) *target {
	t.Helper()
	u := &target{name: name}
	u.Server = httptest.NewUnstartedServer(u)
	if socket != "" {
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		u.Listener.Close()
		u.Listener = l
	}
	if u.Config.ErrorLog = log.New(io.Discard, "", 0); secure {
		u.TLS = new(tls.Config)
		for _, change := range configure {
			change(u.TLS)
		}
		u.StartTLS()
	} else {
		u.Start()
	}
	t.Cleanup(func() {
		u.CloseClientConnections()
		u.Close()
	})
	return u
}

// url is the target as a route names it.
func (u *target) url() string {
	if at := u.Listener.Addr().String(); filepath.IsAbs(at) {
		return "http+unix://" + strings.ReplaceAll(at, "/", "%2F")
	}
	return u.URL
}

func (u *target) host() string { return u.Listener.Addr().String() }

func (u *target) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	do, argument, _ := strings.Cut(r.Header.Get("X-Do"), " ")
	switch status, _ := strconv.Atoi(do); {
	case status >= 300 && argument != "":
		w.Header().Set("Location", argument)
		fallthrough
	case status >= 200:
		w.WriteHeader(status)
		io.WriteString(w, "as told")
		return
	case do == "cut":
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "ten bytes.")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case do == "flood":
		w.Header().Set("Content-Length", strconv.Itoa(flood))
		w.Write(make([]byte, flood))
		return
	case do == "hang":
		<-r.Context().Done()
		return
	}
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		u.echo(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(u.sees(r, string(body)))
}

func (u *target) sees(r *http.Request, body string) seen {
	return seen{r.Method, r.RequestURI, r.Host, body, u.name, r.Header}
}

// echo answers what it sees, and then each message with itself; but
// "close" with a Close frame, and "cut" with the connection's end.
func (u *target) echo(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, Subprotocols: []string{"one", "two"}})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	first, _ := json.Marshal(u.sees(r, ""))
	if conn.Write(r.Context(), websocket.MessageText, first) != nil {
		return
	}
	for {
		kind, message, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		switch string(message) {
		case "close":
			conn.Close(4001, "as told")
			return
		case "cut":
			return
		}
		if conn.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}
