package main_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// browser starts Chromium, and returns a function that opens a page in it. What
// a page complains about fails the test, but for what it has to.
func browser(t *testing.T, complaints ...string) (open func(url string) context.Context) {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		programtest.Missing(t, "Chromium: Debian's package chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.WindowSize(1280, 800),
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium refuses to run as root with it
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	first, _ := chromedp.NewContext(ctx)
	t.Cleanup(func() { chromedp.Cancel(first) })
	do(t, first) // starts it
	return func(url string) context.Context {
		t.Helper()
		page, cancel := chromedp.NewContext(first)
		t.Cleanup(cancel)
		if err := chromedp.Listen(page, func(event any) {
			switch event := event.(type) {
			case *runtime.EventExceptionThrown:
				t.Errorf("%s: exception: %s", url, event.ExceptionDetails.Exception.Description)
			case *log.EventEntryAdded: // such as a resource that is missing or not allowed
				if slices.ContainsFunc(complaints, func(c string) bool { return strings.Contains(event.Entry.Text, c) }) {
					return
				}
				t.Errorf("%s: %s: %s", url, event.Entry.Level, event.Entry.Text)
			}
		}); err != nil {
			t.Fatal(err)
		}
		do(t, page, chromedp.Navigate(url))
		return page
	}
}

func do(t *testing.T, page context.Context, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(page, actions...); err != nil {
		t.Fatal(err)
	}
}

// value evaluates a JavaScript expression.
func value[T any](t *testing.T, page context.Context, expression string) T {
	t.Helper()
	v, err := chromedp.Run(page, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits until an expression is true.
func until(t *testing.T, page context.Context, expression string) {
	t.Helper()
	programtest.Eventually(t, expression, func() bool { return value[bool](t, page, expression) })
}

// picture keeps a screenshot where -artifacts is given.
func picture(t *testing.T, page context.Context, name string, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	do(t, page, actions...)
	png, err := chromedp.Run(page, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(t.ArtifactDir(), name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

func scheme(name string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
		})
		return err
	})
}

const text = `document.getElementById("text").value`

// Two tabs of one workspace see each other's typing, all sockets live through
// a hundred other workspaces, and a socket that does close is reported.
func TestDemo(t *testing.T) {
	g := start(t, "-demo")
	url := "http://" + g.public
	programtest.Eventually(t, "the demo prints where to look", func() bool { return strings.Contains(g.stdout.String(), url+"/webapp-01/ide-grace/ ") })
	open := browser(t)
	board := open(url + "/")
	ada := open(url + "/webapp-01/ide-ada") // without the slash: a redirect follows
	other := open(url + "/webapp-01/ide-ada/")
	grace := open(url + "/webapp-01/ide-grace/")
	tabs := []context.Context{ada, other, grace}
	for _, tab := range tabs {
		until(t, tab, `!document.getElementById("text").disabled`)
	}
	until(t, board, `document.getElementById("count").textContent === "4"`)
	until(t, ada, `document.getElementById("people").childElementCount === 2`)

	// Typing, with the keyboard.
	before := value[string](t, grace, text)
	do(t, ada, chromedp.Focus("#text"), chromedp.Evaluate[chromedp.Void](`document.getElementById("text").setSelectionRange(0, 0)`),
		chromedp.SendKeys("#text", "// Grüße 👋 from the first tab\n"))
	until(t, other, text+`.startsWith("// Grüße 👋 from the first tab\npackage main")`)
	do(t, other, chromedp.Focus("#text"), chromedp.Evaluate[chromedp.Void](`{const t = document.getElementById("text"); t.setSelectionRange(t.value.length, t.value.length)}`),
		chromedp.SendKeys("#text", "// and from the second\n"))
	until(t, ada, text+`.endsWith("}\n// and from the second\n")`)
	until(t, ada, `document.querySelectorAll(".caret").length === 1`)
	if after := value[string](t, grace, text); after != before {
		t.Errorf("the other workspace's file has changed to %q", after)
	}

	// Ages go on by themselves.
	until(t, other, `document.getElementById("age").textContent >= "0:01"`)

	// The button.
	do(t, other, chromedp.Click("#crowd"))
	until(t, board, `document.getElementById("changes").textContent === "200"`)
	for _, tab := range tabs {
		until(t, tab, `document.getElementById("lived").textContent === "200"`)
	}
	if cut := value[string](t, board, `document.getElementById("cut").textContent`); cut != "0" {
		t.Errorf("sockets cut: %s; want 0", cut)
	}
	if closed, _ := g.logged("tunnel closed"); len(closed) > 0 {
		t.Errorf("closed: %v", closed)
	}

	// The same sockets still carry what is typed.
	do(t, ada, chromedp.SendKeys("#text", "// still here\n"))
	until(t, other, text+`.includes("// still here\n")`)

	for _, s := range []string{"light", "dark"} {
		picture(t, board, "board-"+s, scheme(s))
		picture(t, ada, "workspace-"+s, scheme(s))
	}
	narrow := chromedp.EmulateViewport(390, 844)
	picture(t, board, "board-narrow", narrow)
	picture(t, ada, "workspace-narrow", narrow)

	// A tab that is closed ended its socket itself.
	if err := chromedp.Cancel(grace); err != nil {
		t.Fatal(err)
	}
	report := g.await("tunnel closed", nil)
	if report["by"] != "client" || report["route"] != "/webapp-01/ide-grace" || report["livedThrough"] != 200. {
		t.Errorf("close report %v; want one by the client, of /webapp-01/ide-grace, 200 changes later", report)
	}
	until(t, board, `document.getElementById("ended").textContent.includes("ended by the client")`)
	until(t, board, `document.getElementById("count").textContent === "3"`)
	picture(t, board, "board-closed", chromedp.EmulateViewport(1280, 1000), scheme("light"))
}

// Tabs that type at the same time end with the same text. What is inserted is
// in it once, and whole.
func TestDemoConverges(t *testing.T) {
	g := start(t, "-demo")
	open := browser(t)
	var tabs []context.Context
	for range 3 {
		tab := open("http://" + g.public + "/webapp-01/ide-ada/")
		until(t, tab, `!document.getElementById("text").disabled`)
		tabs = append(tabs, tab)
	}
	const rounds = 60
	text := typeInAll(t, tabs, rounds, `
		const at = left & 1 ? 0 : text.value.length; // where all meet
		text.setRangeText("«" + tab + "." + left + "»", at, at, "end")`)
	for tab := range tabs {
		for left := range rounds {
			if mark := fmt.Sprintf("«%d.%d»", tab, left+1); strings.Count(text, mark) != 1 {
				t.Errorf("%s is in the text %d times; want once", mark, strings.Count(text, mark))
			}
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	typeInAll(t, tabs, rounds, `
		const at = Math.floor(Math.random() * (text.value.length + 1));
		text.setRangeText(["x", "👋", "two words", ""][left & 3], at, Math.min(text.value.length, at + Math.floor(Math.random() * 9)), "end")`)
}

// typeInAll runs a script many times in all tabs at once, and returns the text
// that all of them show then.
func typeInAll(t *testing.T, tabs []context.Context, rounds int, script string) string {
	t.Helper()
	errs := make(chan error)
	for i, tab := range tabs {
		typist := fmt.Sprintf(`new Promise(done => {
			const tab = %d, text = document.getElementById("text");
			let left = %d;
			(function type() {
				%s;
				text.dispatchEvent(new Event("input"));
				if (--left > 0) setTimeout(type, Math.random() * 8);
				else done(true);
			})();
		})`, i, rounds, script)
		go func() {
			errs <- chromedp.Do(tab, chromedp.Evaluate[chromedp.Void](typist, chromedp.EvalAwaitPromise))
		}()
	}
	for range tabs {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	texts := make([]string, len(tabs))
	programtest.Eventually(t, "all tabs show the same text, and nothing is on its way", func() bool {
		for i, tab := range tabs {
			texts[i] = value[string](t, tab, `document.getElementById("version").textContent + text.value`)
		}
		return !slices.ContainsFunc(texts, func(s string) bool { return s != texts[0] })
	})
	return texts[0]
}

// The page shows who has ended each socket and why, whichever way it went, at
// last of its own.
func TestDemoEndings(t *testing.T) {
	g := start(t, "-demo", "-drain-delay=100ms", "-drain-window=4s")
	board := browser(t)("http://" + g.public + "/")
	until(t, board, `document.getElementById("count").textContent === "1"`)
	ended := func(what string) {
		t.Helper()
		until(t, board, fmt.Sprintf(`document.getElementById("ended").textContent.includes(%q)`, what))
	}
	for _, row := range []struct{ way, want string }{
		{"kill", "ended by the upstream: RST"},
		{"close", "ended by the gateway: policy, route deleted"},
		{"drain", "ended by the gateway: policy, route deleted"},
		{"keep", ""},
	} {
		var conn *websocket.Conn
		programtest.Eventually(t, "there is a route", func() (ok bool) {
			var err error
			conn, _, err = websocket.Dial(t.Context(), "ws://"+g.public+"/webapp-01/ide-grace/socket?tab="+row.way, nil)
			return err == nil
		})
		defer conn.CloseNow()
		until(t, board, `document.getElementById("count").textContent === "2"`)
		before := value[int](t, board, `document.getElementById("ended").childElementCount`)
		changes := value[string](t, board, `document.getElementById("changes").textContent`)
		frames := make(chan error, 1)
		go func() {
			for {
				if _, _, err := conn.Read(context.Background()); err != nil {
					frames <- err
					return
				}
			}
		}()
		do(t, board, chromedp.Click(".ways [data-way="+row.way+"]"))
		if row.want == "" {
			until(t, board, fmt.Sprintf(`document.getElementById("changes").textContent !== %q`, changes))
			if err := conn.Ping(t.Context()); err != nil {
				t.Errorf("%s: the socket does not live: %v", row.way, err)
			}
			continue
		}
		err := programtest.Receive(t, "the socket ends: "+row.way, frames)
		conn.CloseNow() // as every browser does
		if reason := map[string]string{"close": "the workspace is deleted", "drain": "the workspace stops"}[row.way]; reason != "" &&
			(websocket.CloseStatus(err) != 1001 || !strings.Contains(err.Error(), reason)) {
			t.Errorf("%s: got %v; want 1001, %s", row.way, err, reason)
		}
		until(t, board, `document.getElementById("count").textContent === "1"`)
		if row.way != "kill" {
			until(t, board, fmt.Sprintf(`document.getElementById("ended").childElementCount === %d`, before+1))
		}
		ended(row.want)
	}
	picture(t, board, "board-endings", chromedp.EmulateViewport(1280, 1200))

	do(t, board, chromedp.Evaluate[chromedp.Void](`window.WebSocket = class {}`)) // it would complain that nobody is there
	g.signal(syscall.SIGTERM)
	until(t, board, `document.getElementById("link").textContent.includes("1012: shutdown")`)
	g.wait(0)
}
