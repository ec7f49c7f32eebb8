package main_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// SIGHUP ends no socket: it makes the program read its certificates again, and
// what cannot be read stays as it was.
func TestHangup(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no process sends signals there")
	}
	one, two := makeCertificates(t), makeCertificates(t)
	replace := func(file, by string) {
		t.Helper()
		text, err := os.ReadFile(by)
		if err == nil {
			err = os.WriteFile(file, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	shown := make(chan []byte, 1) // the certificate that the upstream is shown
	upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		shown <- r.TLS.PeerCertificates[0].Raw
	}))
	upstream.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	upstream.StartTLS()
	defer upstream.Close()

	first := mode{tls: one.client(nil), apiTLS: one.client(nil), args: is("--ssl-key", one.key, "--ssl-cert", one.cert,
		"--api-ssl-key", one.key, "--api-ssl-cert", one.cert, "--client-ssl-key", one.key, "--client-ssl-cert", one.cert, "--insecure")}
	d := newDriver(t, ours(), first)
	d.put("/ws", d.target.url())
	d.put("/shown", upstream.URL)
	conn, _ := d.dial("/ws/x")
	hangUps := 0
	hangUp := func(want *certificates) {
		t.Helper()
		d.cmd.Process.Signal(syscall.SIGHUP)
		hangUps++
		programtest.Eventually(t, "the program has reloaded", func() bool {
			select {
			case <-d.exited:
				t.Fatalf("it has ended:\n%s", d.output)
			default:
			}
			return strings.Count(d.output.String(), "msg=reloaded")+strings.Count(d.output.String(), `msg="reloaded; `) == hangUps
		})
		d.public.secure, d.api.secure = want.client(nil), want.client(nil)
		d.talk(conn, "still here")
		d.list("") // by the API's certificate
		d.get(200, "/shown/")
		if got := programtest.Receive(t, "the upstream is asked", shown); string(got) != string(want.pair.Certificate[0]) {
			t.Errorf("after %d hangups the upstream is shown another certificate", hangUps)
		}
	}
	hangUp(one)
	replace(one.cert, two.cert)
	hangUp(one) // the key does not fit
	replace(one.key, two.key)
	hangUp(two)
	if err := os.Remove(one.key); err != nil {
		t.Fatal(err)
	}
	hangUp(two)
}
