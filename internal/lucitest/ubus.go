package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"path/filepath"
)

// denied is the JSON-RPC error of uhttpd for what the session has no right to.
const denied = -32002

type request struct {
	ID     json.RawMessage   `json:"id"`
	Method string            `json:"method"`
	Params []json.RawMessage `json:"params"`
}

type response struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Result  any             `json:"result,omitempty"`
	Error   any             `json:"error,omitempty"`
}

// ubus answers one call, or a batch.
func (s *server) ubus(w http.ResponseWriter, r *http.Request) {
	body, err := readAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var batch []request
	if json.Unmarshal(body, &batch) == nil {
		answers := []response{}
		for _, q := range batch {
			answers = append(answers, s.answer(q))
		}
		s.json(w, answers)
		return
	}
	var q request
	if err := json.Unmarshal(body, &q); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.json(w, s.answer(q))
}

func (s *server) answer(q request) response {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := response{Version: "2.0", ID: q.ID}
	if q.Method == "list" {
		a.Result = map[string]any{}
		return a
	}
	var object, method string
	if len(q.Params) != 4 || json.Unmarshal(q.Params[1], &object) != nil ||
		json.Unmarshal(q.Params[2], &method) != nil {
		a.Error = map[string]any{"code": -32602, "message": "Invalid parameters"}
		return a
	}
	granted, err := s.rights()
	if err != nil {
		log.Print(err)
	}
	if object != "session" && !granted.allow("ubus", object, method) {
		a.Error = map[string]any{"code": denied, "message": "Access denied"}
		return a
	}
	status, result := s.call(granted, object, method, q.Params[3])
	a.Result = []any{status}
	if result != nil {
		a.Result = []any{status, result}
	}
	return a
}

// rights are those of LuCI's base and of the application: what other applications grant is not relied on.
func (s *server) rights() (rights, error) {
	patterns := []string{filepath.Join(s.luci, "modules/luci-base/root/usr/share/rpcd/acl.d/luci-base.json"),
		filepath.Join(s.app, "root/usr/share/rpcd/acl.d/*.json")}
	if s.setting.Network {
		patterns = append(patterns, filepath.Join(s.luci, networkModule, "root/usr/share/rpcd/acl.d/*.json"))
	}
	return readRights(!s.setting.ReadOnly, patterns...)
}

func (s *server) call(granted rights, object, method string, arguments json.RawMessage) (int, any) {
	name := object + "." + method
	if object == "ds4relay" {
		s.calls = append(s.calls, method+" "+string(arguments))
	}
	var a struct {
		Scope, Object, Function, Config, Check string
	}
	if json.Unmarshal(arguments, &a) != nil {
		return 2, nil
	}
	for _, key := range []string{name + "." + a.Check, name} {
		if answer, ok := s.setting.Answers[key]; ok {
			return 0, answer
		}
	}
	switch object {
	case "session":
		return 0, map[string]bool{"access": method == "access" && granted.allow(a.Scope, a.Object, a.Function)}
	case "uci":
		return s.uci(granted, method, a.Config, arguments)
	case "ds4relay":
		answer, err := s.root.call(method, arguments)
		if err != nil {
			log.Print(err)
			return 9, nil
		}
		return 0, answer
	case "network.interface":
		data, err := os.ReadFile(s.root.path("/var/answers/network.interface.dump"))
		if err != nil {
			return 0, map[string]any{"interface": []any{}}
		}
		return 0, json.RawMessage(data)
	}
	return 0, map[string]any{}
}

func (s *server) uci(granted rights, method, config string, arguments json.RawMessage) (int, any) {
	const permissionDenied = 6
	if method == "changes" {
		changes := map[string]any{}
		if len(s.store.changes) > 0 {
			changes["ds4relay"] = s.store.changes
		}
		return 0, map[string]any{"changes": changes}
	}
	permission := "write"
	if method == "get" {
		permission = "read"
	}
	if !granted.allow("uci", config, permission) {
		return permissionDenied, nil
	}
	if config != "ds4relay" {
		return 0, map[string]any{"values": map[string]any{}}
	}
	return s.store.call(method, arguments)
}
