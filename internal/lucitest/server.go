package main

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"log"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
)

// server is LuCI's dispatcher, uhttpd's /ubus and rpcd, for one session.
type server struct {
	luci, app string
	root      *root
	mu        sync.Mutex
	store     *store
	setting   setting
	calls     []string // of the object ds4relay: METHOD ARGUMENTS
}

// setting is what a test sets up.
type setting struct {
	Config   *string `json:"config"` // the file's text
	Started  bool    `json:"started"`
	Enabled  bool    `json:"enabled"`
	ReadOnly bool    `json:"readonly"`
	Language string  `json:"language"`
	Dark     bool    `json:"dark"`
	Network  bool    `json:"network"` // LuCI's own pages of the menu Network are there too
	// OBJECT.METHOD, or ds4relay.doctor.CHECK → what is answered in place of the program.
	Answers map[string]json.RawMessage `json:"answers"`
	Ubus    map[string]json.RawMessage `json:"ubus"` // OBJECT.METHOD → what the program `ubus` answers
}

func newServer(luci, app string, r *root) (*server, error) {
	if _, err := os.Stat(filepath.Join(luci, "modules/luci-base/htdocs/luci-static/resources/luci.js")); err != nil {
		return nil, fmt.Errorf("%s is no LuCI source tree: %w", luci, err)
	}
	s := &server{luci: luci, app: app, root: r, store: &store{path: r.path(configPath)}}
	return s, s.apply(setting{Config: new(string)})
}

// apply takes a test's setting; what was not saved is forgotten.
func (s *server) apply(n setting) error {
	s.setting, s.calls = n, nil
	if n.Config != nil {
		if err := s.root.write(configPath, *n.Config); err != nil {
			return err
		}
	}
	for name, answer := range n.Ubus {
		if err := s.root.write("/var/answers/"+name, string(answer)); err != nil {
			return err
		}
	}
	if err := s.root.set(startedPath, n.Started); err != nil {
		return err
	}
	if err := s.root.set(bootPath, n.Enabled); err != nil {
		return err
	}
	return s.store.load()
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/luci-static/", s.static)
	mux.HandleFunc("/ubus/", s.ubus)
	mux.HandleFunc("/cgi-bin/luci/admin/ubus", s.ubus)
	mux.HandleFunc("/cgi-bin/luci/admin/menu", s.menu)
	mux.HandleFunc("/cgi-bin/luci/admin/uci/", s.applied)
	mux.HandleFunc("/cgi-bin/luci/admin/services/", s.page)
	mux.HandleFunc("/cgi-bin/luci/admin/network/network", s.page)
	mux.HandleFunc("/test/translations.js", s.translations)
	mux.HandleFunc("/test/set", s.set)
	mux.HandleFunc("/test/state", s.state)
	return mux
}

// networkModule has LuCI's pages of the menu Network.
const networkModule = "modules/luci-mod-network"

// static serves the application's files, then LuCI's.
func (s *server) static(w http.ResponseWriter, r *http.Request) {
	name := path.Clean(r.URL.Path)
	dirs := []string{s.app, filepath.Join(s.luci, "modules/luci-base"),
		filepath.Join(s.luci, "themes/luci-theme-bootstrap"), filepath.Join(s.luci, networkModule)}
	for _, dir := range dirs {
		file := filepath.Join(dir, "htdocs", name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			w.Header().Set("Cache-Control", "no-store")
			http.ServeFile(w, r, file)
			return
		}
	}
	http.NotFound(w, r)
}

// page is what LuCI's templates header, view and footer make of a menu entry whose action is a view.
func (s *server) page(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	request := strings.Split(strings.TrimPrefix(path.Clean(r.URL.Path), "/cgi-bin/luci/"), "/")
	if len(request) == 3 && request[1] == "services" {
		request = append(request, "overview")
	}
	env := map[string]any{
		"media": "/luci-static/bootstrap", "resource": "/luci-static/resources", "scriptname": "/cgi-bin/luci",
		"pathinfo": strings.TrimPrefix(r.URL.Path, "/cgi-bin/luci"), "documentroot": "/www", "requestpath": request,
		"dispatchpath": request, "pollinterval": 5, "ubuspath": "/ubus/",
		"sessionid": "0123456789abcdef0123456789abcdef", "token": "token",
		"nodespec": map[string]any{"satisfied": true, "readonly": s.setting.ReadOnly}, "apply_rollback": 90,
		"apply_holdoff": 1, "apply_timeout": 5, "apply_display": 1,
	}
	data, err := json.Marshal(env)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	view := strings.Join(request[2:], "/")
	if request[1] == "network" {
		view = "network/interfaces"
	}
	language := s.setting.Language
	if language == "" {
		language = "en"
	}
	w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	fmt.Fprintf(w, `<!DOCTYPE html>
<html lang="%s" data-darkmode="%t">
<head>
<meta charset="utf-8">
<title>OpenWrt - DS4Relay - LuCI</title>
<meta name="viewport" content="initial-scale=1.0">
<link rel="stylesheet" href="/luci-static/bootstrap/cascade.css">
<link rel="stylesheet" media="only screen and (max-device-width: 854px)" href="/luci-static/bootstrap/mobile.css">
<script src="/luci-static/resources/cbi.js"></script>
<script src="/test/translations.js"></script>
</head>
<body class="lang_%[1]s" data-page="%[3]s">
<header><a class="brand" href="/">OpenWrt</a><ul class="nav" id="topmenu" style="display:none"></ul><div id="indicators" class="pull-right"></div></header>
<div id="maincontent" class="container">
<div id="tabmenu" style="display:none"></div>
<script src="/luci-static/resources/luci.js"></script>
<script>L = new LuCI(%[4]s);</script>
<div id="view"><div class="spinning">…</div>
<script>L.require('ui').then(function(ui) { ui.instantiateView('%[5]s'); });</script>
</div>
</div>
<footer><span>LuCI</span><ul class="breadcrumb pull-right" id="modemenu" style="display:none"></ul></footer>
<script>L.require('menu-bootstrap')</script>
</body>
</html>
`, html.EscapeString(language), s.setting.Dark, html.EscapeString(strings.Join(request, "-")), data,
		html.EscapeString(view))
}

// menu is the tree of the application's menu file, with the entries above it.
func (s *server) menu(w http.ResponseWriter, r *http.Request) {
	data, err := os.ReadFile(filepath.Join(s.app, "root/usr/share/luci/menu.d/luci-app-ds4relay.json"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	var entries map[string]map[string]any
	if err := json.Unmarshal(data, &entries); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	tree := map[string]any{"satisfied": true, "children": map[string]any{}}
	entries["admin"] = map[string]any{"title": "Administration"}
	entries["admin/services"] = map[string]any{"title": "Services", "order": 40}
	for name, entry := range entries {
		node := tree
		for part := range strings.SplitSeq(name, "/") {
			children, ok := node["children"].(map[string]any)
			if !ok {
				children = map[string]any{}
				node["children"] = children
			}
			child, ok := children[part].(map[string]any)
			if !ok {
				child = map[string]any{"satisfied": true}
				children[part] = child
			}
			node = child
		}
		for key, value := range entry {
			node[key] = value
		}
	}
	s.json(w, tree)
}

// applied is Save & Apply, and what follows it.
func (s *server) applied(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.setting.ReadOnly {
		http.Error(w, "forbidden", http.StatusForbidden)
		return
	}
	var err error
	switch path.Base(r.URL.Path) {
	case "apply_rollback":
		err = s.store.commit()
		if err == nil {
			s.json(w, map[string]string{"token": "rollback"})
		}
	case "apply_unchecked":
		if err = s.store.commit(); err == nil {
			w.WriteHeader(http.StatusNoContent)
		}
	case "confirm":
		w.WriteHeader(http.StatusNoContent)
	case "revert":
		err = s.store.load()
	default:
		http.NotFound(w, r)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (s *server) json(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil {
		log.Print(err)
	}
}

// set takes a setting from a test.
func (s *server) set(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var n setting
	err := json.NewDecoder(r.Body).Decode(&n)
	if err == nil {
		err = s.apply(n)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

// state tells a test what the file says, what is not applied yet, and what the program was asked.
func (s *server) state(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	file, err := os.ReadFile(s.root.path(configPath))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.json(w, map[string]any{"file": string(file), "staged": s.store.text(), "changes": len(s.store.changes),
		"calls": s.calls})
}

func readAll(r io.Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(r, 4<<20)) }
