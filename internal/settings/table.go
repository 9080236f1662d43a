package settings

import (
	"fmt"
	"strings"
)

// Table gives all settings as a Markdown table, as it stands in docs/configuration.md.
func Table() string {
	var table strings.Builder
	table.WriteString("| setting (flag, key of the file) | environment | default | allowed | meaning |\n")
	table.WriteString("| --- | --- | --- | --- | --- |\n")
	for _, field := range fields() {
		name, environment := "`--"+field.Name+"`, `"+field.Name+":`", "`"+field.Environment+"`"
		if field.FileOnly {
			name, environment = "`"+field.Name+":` (file only)", "none"
		}
		if !field.InFile {
			name = "`--" + field.Name + "` (not in the file)"
		}
		defaultText := "none"
		if field.Default != "" {
			defaultText = "`" + field.Default + "`"
		}
		if field.Bound == "true or false" {
			defaultText = "`false`"
		}
		bound := strings.ReplaceAll(field.Bound, "|", `\|`)
		fmt.Fprintf(&table, "| %s | %s | %s | %s | %s |\n", name, environment, defaultText, bound, field.Help)
	}
	return table.String()
}
