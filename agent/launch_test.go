// Reasons of commands that cannot start.

package main

import (
	"os"
	"strings"
	"testing"

	"bhatti/agent/wire"
)

func TestACommandThatCannotStartNamesItsReason(t *testing.T) {
	h := personalised(t)
	folder := t.TempDir()
	for name, content := range map[string]string{"plain": "echo hi\n", "lost": "#!/no/such/shell\n"} {
		if err := os.WriteFile(folder+"/"+name, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cases := map[wire.Reason][]map[string]any{
		wire.NoUser:        {{"argv": []string{"true"}, "user": "no-such-user"}},
		wire.NoDirectory:   {{"argv": []string{"true"}, "cwd": "/no/such"}, {"argv": []string{"true"}, "cwd": "/etc/passwd"}},
		wire.NoProgram:     {{"argv": []string{"no-such-program"}}, {"argv": []string{"/no/such"}}},
		wire.NotExecutable: {{"argv": []string{"/etc/passwd"}}, {"argv": []string{"/etc"}}},
		wire.WrongFormat:   {{"argv": []string{folder + "/plain"}}},
		wire.NoInterpreter: {{"argv": []string{folder + "/lost"}}},
		wire.TooLong:       {{"argv": []string{"true", strings.Repeat("x", 200_000)}}},
		wire.BadText: {
			{"argv": []string{}}, {"argv": []string{"true", "a\x00b"}},
			{"argv": []string{"true"}, "env": map[string]string{"A=B": "c"}},
		},
	}
	if os.Geteuid() == 0 {
		cases[wire.Denied] = []map[string]any{{"argv": []string{"true"}, "user": "nobody", "cwd": privateFolder(t)}}
	}
	for reason, requests := range cases {
		for _, request := range requests {
			e := h.finish(h.exec(request))
			if e.Error == nil || e.Error.Reason != reason {
				t.Errorf("%s: %+v", reason, e.Error)
			}
		}
	}
}
