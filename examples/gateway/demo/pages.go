package demo

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"time"
)

// The pages and what they need: nothing comes from elsewhere. All links are
// relative, since only the gateway knows under which path a page is seen.
//
//go:embed pages
var assets embed.FS

var pages = template.Must(template.ParseFS(assets, "pages/*.html"))

func servePage(w http.ResponseWriter, name string, data any) {
	var page bytes.Buffer
	if err := pages.ExecuteTemplate(&page, name, data); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	header.Set("Cache-Control", "no-cache")
	w.Write(page.Bytes())
}

// serveAsset serves scripts, style and pictures.
func serveAsset(w http.ResponseWriter, r *http.Request) {
	asset, err := assets.ReadFile("pages" + r.URL.Path)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, r.URL.Path, time.Time{}, bytes.NewReader(asset))
}
