package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// Whole processes are compared: this test binary starts itself again as a
// backend, as a gateway, and as a bare httputil.ReverseProxy.

func TestMain(m *testing.M) {
	role := strings.Fields(os.Getenv("SLIPSWITCH_ROLE"))
	if len(role) == 0 {
		os.Exit(testMain(m))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr())
	go http.Serve(listener, roles[role[0]](role[1:]))
	io.Copy(io.Discard, os.Stdin) // until the parent ends
}

// dir is where what the benchmarks build is kept until they end.
var dir string

func testMain(m *testing.M) int {
	var err error
	if dir, err = os.MkdirTemp("", "bench"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	return m.Run()
}

var roles = map[string]func(args []string) http.Handler{
	"backend": func([]string) http.Handler {
		body := []byte(strings.Repeat("x", 1024))
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(body) })
	},
	"sockets": sockets,
	// gateway BACKEND ROUTES CHANGES/S
	"gateway": func(args []string) http.Handler {
		n, _ := strconv.Atoi(args[1])
		rate, _ := strconv.Atoi(args[2])
		router := new(slipswitch.Router)
		if _, err := router.Update(func(tx *slipswitch.Txn) error {
			for i := range n {
				r := route(i)
				r.Upstreams = slipswitch.To("http://" + args[0])
				tx.Put(r)
			}
			return nil
		}); err != nil {
			panic(err)
		}
		if rate > 0 {
			go change(router, n, rate, nil)
		}
		return &slipswitch.Proxy{Router: router}
	},
	// bare BACKEND: no routes at all, one backend, the same transport.
	"bare": func(args []string) http.Handler {
		backend := &url.URL{Scheme: "http", Host: args[0]}
		return &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(backend)
				r.Out.Host = r.In.Host
				r.SetXForwarded()
			},
			Transport: &http.Transport{
				DisableCompression:     true,
				MaxIdleConns:           4096,
				MaxIdleConnsPerHost:    64,
				IdleConnTimeout:        90 * time.Second,
				MaxResponseHeaderBytes: 1 << 20,
			},
		}
	},
}

// change puts and deletes other workspaces, so many a second, until stop is
// closed.
func change(router *slipswitch.Router, n, rate int, stop <-chan struct{}) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	start, done := time.Now(), 0
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		for ; done < int(time.Since(start).Seconds()*float64(rate)); done++ {
			other := route(n + done/2%1000)
			router.Update(func(tx *slipswitch.Txn) error {
				if done%2 == 0 {
					tx.Put(other)
				} else {
					tx.Delete(other.Key())
				}
				return nil
			})
		}
	}
}

// A process is one of the roles.
type process struct {
	cmd  *exec.Cmd
	addr string
	stop func()
}

// dial connects to a process. No benchmark needs a connection for longer than
// five minutes: what has not come over it by then does not come.
func dial(addr string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(5 * time.Minute))
	}
	return conn, err
}

// web is for requests that are no load.
var web = &http.Client{Timeout: patience}

func start(b *testing.B, role ...any) *process {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SLIPSWITCH_ROLE="+strings.TrimSpace(fmt.Sprintln(role...)))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		stdin.Close()
		defer time.AfterFunc(patience, func() { cmd.Process.Kill() }).Stop()
		cmd.Wait()
	})
	b.Cleanup(stop)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return &process{cmd, strings.TrimSpace(line), stop}
}

// cpu returns the processor time that the process has used so far.
func (p *process) cpu() time.Duration { return usageOf(p.cmd.Process.Pid).cpu }
