// The agent runs in any image and is built without a network: it imports the standard library and itself.

package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "bhatti/agent"

func TestOnlyTheStandardLibraryIsImported(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			first, _, _ := strings.Cut(name, "/")
			isOurs := name == module || strings.HasPrefix(name, module+"/")
			if strings.Contains(first, ".") || name == "C" || (first == "bhatti" && !isOurs) {
				t.Errorf("%s imports %s", path, name)
			}
			if isOurs && filepath.Dir(path) == "wire" {
				t.Errorf("%s imports %s, but wire knows nothing of the agent", path, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
