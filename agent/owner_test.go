// Tests of owners that the host names.

package main

import (
	"os"
	"path/filepath"
	"testing"

	"bhatti/agent/wire"
)

func TestOwnersAreFoundByNameAndNumber(t *testing.T) {
	etc := t.TempDir()
	for name, text := range map[string]string{
		"passwd": "root:x:0:0::/root:/bin/sh\nlohar:x:1000:1000::/home/lohar:/bin/bash\n",
		"group":  "root:x:0:\nwww-data:x:33:\n",
	} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string]wire.FileOwner{
		"root":           {UID: 0, GID: 0},
		"lohar:www-data": {UID: 1000, GID: 33},
		"1000":           {UID: 1000, GID: 1000},
		"4242":           {UID: 4242, GID: 4242},
		"4242:33":        {UID: 4242, GID: 33},
		"root:4242":      {UID: 0, GID: 4242},
	} {
		if got, err := findOwner(etc, text); err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", ":", "root:", ":root", "nobody-here", "root:nogroup", "-1", "4294967295"} {
		if got, err := findOwner(etc, text); err == nil {
			t.Errorf("%q is accepted as %v", text, got)
		} else if asError(err).Code != wire.Invalid {
			t.Errorf("%q: %v is not invalid", text, err)
		}
	}
}
