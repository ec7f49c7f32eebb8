package main_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// timeout is that of the modes with one, in --timeout or --proxy-timeout.
const timeout = 3 * time.Second

// dropsClients says whether the command line bounds what clients do, too.
func (d *driver) dropsClients() bool {
	return strings.Contains(strings.Join(d.cmd.Args, " "), "--timeout")
}

func timesOut(d *driver) {
	d.put("/hangs", d.target.url())
	begin, want := time.Now(), "503"
	if d.real && d.dropsClients() {
		want = "the end" // known: its --timeout drops the connection
	}
	conn, r := d.open(d.public, "GET /hangs/ HTTP/1.1\r\nHost: "+host+"\r\nX-Do: hang\r\n\r\n")
	conn.SetDeadline(begin.Add(patience))
	if got := d.status(r); got != want {
		d.Errorf("got %s; want %s", got, want)
	}
	if took := time.Since(begin); took < timeout-100*time.Millisecond {
		d.Errorf("given up after %v; want %v", took, timeout)
	}
	_, response, err := d.tryDial("/hangs/ws", "X-Do", "hang")
	if !d.real && (err == nil || response == nil || response.StatusCode != 503) {
		d.Errorf("WebSocket: got %v, %v; want 503", response, err)
	}
}

func keepAlive(d *driver) {
	d.put("/alive", d.target.url())
	conn, r := d.open(d.public, "GET /alive/ HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
	conn.SetDeadline(time.Now().Add(patience))
	if got := d.status(r); got != "200" {
		d.Fatalf("got %s", got)
	}
	begin := time.Now()
	if _, err := r.ReadByte(); err != io.EOF {
		d.Errorf("got %v; want the end", err)
	}
	if took := time.Since(begin); took < 1400*time.Millisecond || took > 4500*time.Millisecond {
		d.Errorf("ended after %v; want 1.5s, not the usual 5s", took) // the real one adds a second
	}
}

func staysOpen(d *driver) {
	d.put("/stays", d.target.url())
	conn, _ := d.dial("/stays/ws")
	time.Sleep(timeout + time.Second) // nothing else tells that nothing happens
	if d.real && d.dropsClients() {
		return // whether its timer ends it depends on what else the socket did
	}
	d.talk(conn, "still here")
}

// slowClients are served while they do something within each timeout, however
// long all of it takes. One that pauses for longer is dropped by --timeout; by
// --proxy-timeout it is not, since that is the target's.
func slowClients(d *driver) {
	d.put("/slow", d.target.url())
	var all sync.WaitGroup
	defer all.Wait()
	for name, do := range map[string]func(d *driver, pauses int, pause time.Duration) error{"upload": uploads, "download": downloads} {
		all.Go(func() {
			err := errors.New("not tried")
			for tries := 3; err != nil && tries > 0; tries-- { // a busy machine may make pauses longer
				err = do(d, 8, timeout/4)
			}
			if err != nil {
				d.Errorf("a slow %s: got %v; want all of it", name, err)
			}
		})
		if d.real && !d.dropsClients() {
			continue // known: it takes the client's pause for the target's, answers 503, and leaves downloads hanging
		}
		all.Go(func() {
			if err := do(d, 1, timeout*5/2); (err == nil) == d.dropsClients() {
				d.Errorf("a pause in the %s: got %v; want the end: %v", name, err, d.dropsClients())
			}
		})
	}
}

// uploads sends a body with pauses in it, and wants it to arrive.
func uploads(d *driver, pauses int, pause time.Duration) error {
	conn, err := d.public.dial(d.Context())
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "POST /slow/ HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", host, 4*(pauses+1))
	for range pauses {
		io.WriteString(conn, "part")
		time.Sleep(pause)
	}
	io.WriteString(conn, "part")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != 200 {
		return fmt.Errorf("%s", response.Status)
	}
	if got, want := d.saw(string(body)).Body, strings.Repeat("part", pauses+1); got != want {
		return fmt.Errorf("the target has seen %q", got)
	}
	return nil
}

// downloads reads a flood, once its own body is sent, with pauses in which
// nothing can be written to it: a flood is larger than what all sockets on the
// way hold.
func downloads(d *driver, pauses int, pause time.Duration) error {
	conn, err := d.public.dial(d.Context())
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "POST /slow/ HTTP/1.1\r\nHost: %s\r\nX-Do: flood\r\nContent-Length: 4\r\n\r\npart", host)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	for range pauses {
		time.Sleep(pause)
		if _, err := io.CopyN(io.Discard, response.Body, flood/int64(pauses+1)); err != nil {
			return err
		}
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
