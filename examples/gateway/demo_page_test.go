package main_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// faint lists the texts whose contrast with what is behind them is less than
// WCAG 2 asks for (1.4.3): 4.5, or 3 for large ones.
const faint = `(() => {
	const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
	const rgba = colour => {
		canvas.clearRect(0, 0, 1, 1);
		canvas.fillStyle = colour;
		canvas.fillRect(0, 0, 1, 1);
		return canvas.getImageData(0, 0, 1, 1).data;
	};
	const luminance = colour => [0.2126, 0.7152, 0.0722].reduce((sum, part, i) => {
		const c = colour[i] / 255;
		return sum + part * (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
	}, 0);
	const found = [];
	for (const e of document.body.querySelectorAll("*")) {
		if (![...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim()) || !e.checkVisibility()) continue;
		const style = getComputedStyle(e), colour = rgba(style.color), size = parseFloat(style.fontSize);
		if (colour[3] < 255) continue;
		let behind = e, back;
		while ((back = rgba(getComputedStyle(behind).backgroundColor))[3] < 255) behind = behind.parentElement;
		const [light, dark] = [luminance(colour), luminance(back)].sort((a, b) => b - a);
		const ratio = (light + 0.05) / (dark + 0.05);
		const least = size >= 24 || size >= 18.66 && style.fontWeight >= 700 ? 3 : 4.5;
		if (ratio < least) found.push(e.tagName + "#" + e.id + "." + e.className + " " + e.textContent.trim().slice(0, 20) + ": " + ratio.toFixed(2));
	}
	return found.join("\n");
})()`

// clipped lists what does not fit in the width of the window, and so can be read
// only by scrolling sideways, or not at all (WCAG 2, 1.4.10).
const clipped = `(() => {
	const found = [], width = document.documentElement.clientWidth;
	if (document.documentElement.scrollWidth > width) found.push("the page is " + document.documentElement.scrollWidth + " wide");
	for (const e of document.body.querySelectorAll("*")) {
		if (!e.checkVisibility() || e.closest(".page, svg, thead, .track")) continue; // text of a program scrolls
		const box = e.getBoundingClientRect();
		if (box.right > width + 1 || box.left < -1) found.push(e.tagName + "#" + e.id + "." + e.className + ": " + box.left + " to " + box.right);
	}
	return found.join("\n");
})()`

// The demo's pages can be read by all: contrast in both schemes, a heading, and
// no more than 320 pixels of width, with a full list.
func TestDemoReadable(t *testing.T) {
	g := start(t, "-demo")
	open := browser(t)
	pages := map[string]context.Context{}
	for name, path := range map[string]string{"board": "/", "workspace": "/webapp-01/ide-ada/"} {
		pages[name] = open("http://" + g.public + path)
	}
	open("http://" + g.public + "/webapp-01/ide-grace/")
	do(t, pages["workspace"], chromedp.Click("#crowd")) // longer numbers
	for name, page := range pages {
		until(t, page, `document.getElementById("open").childElementCount === 3`)
		until(t, page, `document.getElementById("changes").textContent === "200"`)
		if n := value[int](t, page, `document.querySelectorAll("h1").length`); n != 1 {
			t.Errorf("%s: %d h1; want 1", name, n)
		}
		do(t, page, chromedp.Evaluate[chromedp.Void](`document.getElementById("endings").open = true`))
		for _, s := range []string{"light", "dark"} {
			do(t, page, scheme(s))
			if got := value[string](t, page, faint); got != "" {
				t.Errorf("%s, %s: too faint:\n%s", name, s, got)
			}
		}
		do(t, page, scheme("light"), chromedp.EmulateViewport(320, 800))
		do(t, page, chromedp.Evaluate[chromedp.Void](`document.getElementById("open").scrollIntoView()`))
		picture(t, page, name+"-320")
		if got := value[string](t, page, clipped); got != "" {
			t.Errorf("%s at 320 pixels: clipped:\n%s", name, got)
		}
	}
}

// Where a tab's socket cannot be opened again, the page goes on to say why the
// last one closed.
func TestDemoKeepsTheReason(t *testing.T) {
	g := start(t, "-demo", "-drain-window=2s")
	page := browser(t, "ERR_CONNECTION_REFUSED", "WebSocket connection to")("http://" + g.public + "/webapp-01/ide-ada/")
	until(t, page, `!document.getElementById("text").disabled`)
	do(t, page, chromedp.Evaluate[chromedp.Void](`window.tries = 0; window.WebSocket = class extends WebSocket {
		constructor(...args) { super(...args); this.addEventListener("close", () => window.tries++) }
	}`))
	g.stop()
	until(t, page, `window.tries >= 2`)
	if got := value[string](t, page, `document.getElementById("link").textContent`); !strings.Contains(got, "1012: shutdown") {
		t.Errorf("the page says %q; want the reason of the socket that was open", got)
	}
}

// Each address that the demo prints is one to click on.
func TestDemoWelcome(t *testing.T) {
	g := start(t, "-demo")
	base := "http://" + g.public
	programtest.Eventually(t, "the demo prints where to look", func() bool { return strings.Contains(g.stdout.String(), base+"/service/") })
	for field := range strings.FieldsSeq(g.stdout.String()) {
		if !strings.HasPrefix(field, base) {
			continue
		}
		u, err := url.Parse(field)
		if err != nil {
			t.Fatal(err)
		}
		programtest.Eventually(t, fmt.Sprint(field, " is there"), func() bool {
			response, _, err := g.get(u.Path)
			if err == nil && response.StatusCode != http.StatusOK && response.StatusCode != http.StatusServiceUnavailable {
				t.Fatalf("%s: %s", field, response.Status)
			}
			return err == nil && response.StatusCode == http.StatusOK
		})
	}
}
