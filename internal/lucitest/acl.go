package main

import (
	"encoding/json"
	"os"
	"path"
	"path/filepath"
)

// rights are what a session may do: scope → object → functions.
type rights map[string]map[string][]string

// readRights collects the ACL files of rpcd: what grants reading, and, for who may write, the rest.
func readRights(write bool, files ...string) (rights, error) {
	r := rights{"access-group": {}}
	for _, pattern := range files {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			var groups map[string]map[string]json.RawMessage
			if err := json.Unmarshal(data, &groups); err != nil {
				return nil, err
			}
			for group, permissions := range groups {
				r.grant("read", permissions["read"])
				r["access-group"][group] = append(r["access-group"][group], "read")
				if write {
					r.grant("write", permissions["write"])
					r["access-group"][group] = append(r["access-group"][group], "write")
				}
			}
		}
	}
	return r, nil
}

// grant adds one permission: an object with functions, or a list of objects, whose function is the permission.
func (r rights) grant(permission string, data json.RawMessage) {
	var scopes map[string]json.RawMessage
	if json.Unmarshal(data, &scopes) != nil {
		return
	}
	for scope, granted := range scopes {
		if r[scope] == nil {
			r[scope] = map[string][]string{}
		}
		var list []string
		var objects map[string][]string
		if json.Unmarshal(granted, &list) == nil {
			for _, object := range list {
				r[scope][object] = append(r[scope][object], permission)
			}
		} else if json.Unmarshal(granted, &objects) == nil {
			for object, functions := range objects {
				r[scope][object] = append(r[scope][object], functions...)
			}
		}
	}
}

func (r rights) allow(scope, object, function string) bool {
	for pattern, functions := range r[scope] {
		if ok, _ := path.Match(pattern, object); !ok {
			continue
		}
		for _, f := range functions {
			if ok, _ := path.Match(f, function); ok {
				return true
			}
		}
	}
	return false
}
