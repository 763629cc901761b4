// The commands that end or restart a guest from inside.

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestPowerCommandsAreUnderstood(t *testing.T) {
	for line, want := range map[string]syscall.Signal{
		"poweroff": signalPowerOff, "halt": signalPowerOff, "reboot": signalReboot, "shutdown": signalPowerOff,
		"shutdown -h now": signalPowerOff, "shutdown -r now": signalReboot, "shutdown -r +0 going down": signalReboot,
		"reboot -f": signalReboot, "poweroff -f": signalPowerOff, "reboot -p": signalPowerOff, "halt --reboot": signalReboot,
		"shutdown +5": 0, "shutdown -h +10": 0, "shutdown -r 23:00": 0, "shutdown -c": 0, "reboot tomorrow": 0, "poweroff --help": 0,
	} {
		words := strings.Fields(line)
		got, err := parsePowerCommand(words[0], words[1:])
		if got != want || (err != nil) != (want == 0) {
			t.Errorf("%s: %v %v", line, got, err)
		}
	}
}

func TestPowerCommandsReplaceNothing(t *testing.T) {
	root := t.TempDir()
	folder := filepath.Join(root, powerFolder)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(folder, "reboot")
	if err := os.WriteFile(own, []byte("mine"), 0o755); err != nil {
		t.Fatal(err)
	}
	for times := 0; times < 2; times++ {
		if err := linkPowerCommands(root); err != nil {
			t.Fatal(err)
		}
	}
	if content, err := os.ReadFile(own); string(content) != "mine" {
		t.Error(err)
	}
	if target, err := os.Readlink(filepath.Join(folder, "poweroff")); target != "/proc/1/exe" {
		t.Error(target, err)
	}
}
