package settings

import (
	"os"
	"strings"
	"testing"
)

func TestCouncilKeys(t *testing.T) {
	const fromFile, fromVariable = "opensesame-file", "opensesame-variable"
	for _, test := range []struct {
		name        string
		file        string
		environment []string
		want        string // of OpenAI's
		problem     string // the start of the one problem; "" for none
	}{
		{"none", "council: {per_minute: 5}", nil, "", ""},
		{"in the file", "council: {openai: {key: " + fromFile + "}}", nil, fromFile, ""},
		{"in a file of its own", "council: {openai: {key_file: key}}", nil, fromFile, ""},
		{"in the environment", "", []string{"OPENAI_API_KEY=" + fromVariable, "ANTHROPIC_API_KEY="}, fromVariable, ""},
		{"the environment wins", "council: {openai: {key: " + fromFile + "}}", []string{"OPENAI_API_KEY=" + fromVariable}, fromVariable, ""},
		{"over a file of its own", "council: {openai: {key_file: nowhere}}", []string{"OPENAI_API_KEY=" + fromVariable}, fromVariable, ""},
		{"another provider's", "", []string{"GEMINI_API_KEY=" + fromVariable}, "", ""},
		{"twice", "council: {openai: {key: " + fromFile + ", key_file: key}}", nil, fromFile, "c.yaml:1:52: council.openai.key_file: key is set too"},
		{"empty", "council: {openai: {key_file: empty}}", nil, "", "c.yaml:1:30: council.openai.key_file: empty is empty"},
		{"two lines in a variable", "", []string{"OPENAI_API_KEY=opensesame\nopensesame"}, "opensesame\nopensesame", "OPENAI_API_KEY: holds a space"},
	} {
		t.Run(test.name, func(t *testing.T) {
			writeFile(t, "c.yaml", test.file+"\n")
			for name, content := range map[string]string{"key": fromFile + "\r\n", "empty": "\n"} {
				if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			loaded := load(t, "c.yaml", test.environment...)
			loaded.Check()
			if got := string(loaded.Settings.Council.OpenAI.Key); got != test.want {
				t.Errorf("the key is %q, want %q", got, test.want)
			}
			if printed, err := loaded.Print(); err != nil || strings.Contains(string(printed), "opensesame") {
				t.Errorf("printed, with %v:\n%s", err, printed)
			} else if test.problem == "" {
				writeFile(t, "printed.yaml", string(printed))
				if err := os.WriteFile("key", []byte(fromFile), 0o600); err != nil {
					t.Fatal(err)
				}
				again := load(t, "printed.yaml")
				if again.Check(); len(again.Problems) > 0 {
					t.Errorf("printed, it is read with %v:\n%s", again.Problems, printed)
				}
			}
			got := loaded.Problems.Error()
			if test.problem == "" && got != "" || !strings.HasPrefix(got, test.problem) || strings.Contains(got, "\n") {
				t.Errorf("got %q, want %q", got, test.problem)
			}
			if strings.Contains(got, "opensesame") {
				t.Error("the key is told")
			}
		})
	}
}
