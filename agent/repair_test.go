// Tests of how a repair is requested, and of its report.

package main

import (
	"strings"
	"testing"
)

func TestRepairIsAskedForByItsWholeWord(t *testing.T) {
	for line, isWanted := range map[string]bool{
		"console=ttyS0 bhatti.repair root=/dev/vda\n": true,
		"bhatti.repair":                true,
		"console=ttyS0 bhatti.repairs": false,
		"init=/x/bhatti.repair quiet":  false,
		"":                             false,
	} {
		if hasArgument(line, "bhatti.repair") != isWanted {
			t.Errorf("%q: wanted %v", line, isWanted)
		}
	}
}

func TestOfARepairsWordsTheLastAreTold(t *testing.T) {
	words := lastWords([]byte(strings.Repeat("Inode 12 fixed\n", 1000) + "bad byte \xff\nthe end\n"))
	if len(words) > repairWordsMax+8 || !strings.HasSuffix(words, "bad byte ?\nthe end") {
		t.Errorf("%d bytes, ending %q", len(words), words[len(words)-20:])
	}
}

func TestAFilesystemThatTakesWritesIsNotReadOnly(t *testing.T) {
	if isReadOnly(t.TempDir()) {
		t.Error("the folder for tests is read-only")
	}
	if isReadOnly("/nowhere/at/all") {
		t.Error("what is not there is no read-only filesystem")
	}
}
