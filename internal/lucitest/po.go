package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// translations puts the catalogues of the application and of LuCI's base where LuCI's _() looks for them. On a router
// they are compiled; the keys are made by LuCI's own hash here. Where both have a text, LuCI's translation is used, as
// it may be on a router.
func (s *server) translations(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	language := s.setting.Language
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/javascript; charset=UTF-8")
	w.Header().Set("Cache-Control", "no-store")
	if language == "" {
		return
	}
	var pairs [][2]string
	for _, file := range []string{
		filepath.Join(s.app, "po", language, "ds4relay.po"),
		filepath.Join(s.luci, "modules/luci-base/po", language, "base.po"),
	} {
		read, err := readCatalogue(file)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		pairs = append(pairs, read...)
	}
	data, err := json.Marshal(pairs)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, "window.TR = {};\nfor (const [ key, text ] of %s) TR[sfh(key)] = text;\n", data)
}

// readCatalogue reads a .po file: keys as _() makes them (context, \1, text), and the translations.
func readCatalogue(file string) ([][2]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var pairs [][2]string
	var entry map[string]string
	keyword := ""
	finish := func() {
		key := entry["msgid"]
		if context, ok := entry["msgctxt"]; ok {
			key = strings.TrimSpace(context) + "\x01" + key
		}
		if entry["msgid"] != "" && entry["msgstr"] != "" && entry["msgid_plural"] == "" {
			pairs = append(pairs, [2]string{key, entry["msgstr"]})
		}
		entry = map[string]string{}
	}
	entry = map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			if line == "" {
				finish()
			}
			continue
		}
		if line[0] != '"' {
			word, rest, _ := strings.Cut(line, " ")
			keyword, line = word, rest
			entry[keyword] = ""
		}
		text, err := strconv.Unquote(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", file, line, err)
		}
		entry[keyword] += text
	}
	finish()
	return pairs, lines.Err()
}
