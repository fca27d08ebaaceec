package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// The states that the views are tested with are such as the program prints.
func TestFixtures(t *testing.T) {
	files, err := filepath.Glob("../../luci-app/test/fixtures/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		decoder := json.NewDecoder(f)
		decoder.DisallowUnknownFields()
		var status reconcile.Status
		if err := decoder.Decode(&status); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
	}
}
