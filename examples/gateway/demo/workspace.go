package demo

import (
	"errors"
	"net/http"
	"sync"
)

// A workspace is a file, and the tabs that edit it.
type workspace struct {
	board *board
	path  string

	mu   sync.Mutex // serialises edits, so that all tabs get them in the same order
	file *file
	tabs map[*tab]struct{}
}

func (w *workspace) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/":
		servePage(rw, "editor.html", map[string]string{"Path": w.path, "File": w.file.name})
	case "/socket":
		serveSocket(rw, r, w.board, w)
	default:
		serveAsset(rw, r)
	}
}

// A person is a tab as other tabs in its workspace see it.
type person struct {
	Tab   string `json:"tab"`
	Name  string `json:"name"`
	Hue   int    `json:"hue"`
	Caret int    `json:"caret"` // offset in the file
}

// The messages to tabs. board.go has the one that all pages get.
type (
	helloMessage struct {
		Type    string   `json:"type"` // "hello", the first message
		Name    string   `json:"name"` // of the tab
		Text    string   `json:"text"`
		Version int      `json:"version"`
		People  []person `json:"people"`
	}
	peopleMessage struct {
		Type   string   `json:"type"` // "people": a tab has come or gone
		People []person `json:"people"`
	}
	editMessage struct {
		Type string `json:"type"` // "edit"
		Tab  string `json:"tab"`  // its author
		edit
	}
	caretMessage struct {
		Type    string `json:"type"` // "caret"
		Tab     string `json:"tab"`
		Version int    `json:"version"`
		Caret   int    `json:"caret"`
	}
)

func (w *workspace) join(t *tab) {
	w.mu.Lock()
	defer w.mu.Unlock()
	people := w.people()
	w.tell(peopleMessage{"people", append(people, t.person)})
	w.tabs[t] = struct{}{}
	t.send(helloMessage{"hello", t.person.Name, w.file.String(), w.file.version, append(people, t.person)})
}

func (w *workspace) leave(t *tab) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.tabs, t)
	w.tell(peopleMessage{"people", w.people()})
}

// receive handles a message of a tab. An error ends its socket.
func (w *workspace) receive(t *tab, m received) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch m.Type {
	case "edit":
		err := w.file.apply(m.edit)
		if errors.Is(err, errStale) {
			return nil // the tab will get the newer edits, and make its own again
		}
		if err != nil {
			return err
		}
		for other := range w.tabs {
			other.person.Caret = m.moved(other.person.Caret)
		}
		m.Version = w.file.version
		w.tell(editMessage{"edit", t.person.Tab, m.edit})
	case "caret":
		if m.Version == w.file.version {
			t.person.Caret = min(max(m.Caret, 0), len(w.file.text))
			w.tell(caretMessage{"caret", t.person.Tab, m.Version, t.person.Caret})
		}
	}
	return nil
}

// people lists the tabs. The lock is held.
func (w *workspace) people() []person {
	people := make([]person, 0, len(w.tabs)+1)
	for t := range w.tabs {
		people = append(people, t.person)
	}
	return people
}

// tell sends a message to all tabs. The lock is held.
func (w *workspace) tell(message any) {
	encoded := encode(message)
	for t := range w.tabs {
		t.sendEncoded(encoded)
	}
}
