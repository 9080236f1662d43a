package deploy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// dashboard is what the tests read of grafana/millrace.json.
type dashboard struct {
	UID           string  `json:"uid"`
	Title         string  `json:"title"`
	SchemaVersion int     `json:"schemaVersion"`
	Panels        []panel `json:"panels"`
}

type panel struct {
	ID          int    `json:"id"`
	Type        string `json:"type"`
	Title       string `json:"title"`
	Description string `json:"description"`
	Grid        struct {
		X, Y, W, H int
	} `json:"gridPos"`
	Targets []struct {
		Expression string `json:"expr"`
		Reference  string `json:"refId"`
	} `json:"targets"`
}

// gridWidth is how many columns a dashboard has.
const gridWidth = 24

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var board dashboard
	if err := json.Unmarshal([]byte(read(t, "grafana/millrace.json")), &board); err != nil {
		t.Fatal(err)
	}
	if board.UID == "" || board.Title == "" || board.SchemaVersion == 0 || len(board.Panels) == 0 {
		t.Fatalf("the dashboard lacks its uid, title, schemaVersion or panels: %+v", board)
	}
	return board
}

// TestDashboard holds the panels to metrics that exist and to a word of explanation.
func TestDashboard(t *testing.T) {
	known := knownMetrics(t)
	for _, panel := range readDashboard(t).Panels {
		if panel.Type == "row" {
			continue
		}
		if len(panel.Targets) == 0 || panel.Description == "" {
			t.Errorf("panel %q lacks targets or a description", panel.Title)
		}
		references := make(map[string]bool)
		for _, target := range panel.Targets {
			if references[target.Reference] {
				t.Errorf("panel %q has two targets %s", panel.Title, target.Reference)
			}
			references[target.Reference] = true
			wantKnown(t, known, "panel "+panel.Title, target.Expression)
		}
	}
}

// TestDashboardGrid: no two panels share an id or a place.
func TestDashboardGrid(t *testing.T) {
	ids := make(map[int]bool)
	taken := make(map[[2]int]string)
	for _, panel := range readDashboard(t).Panels {
		if ids[panel.ID] {
			t.Errorf("two panels have the id %d", panel.ID)
		}
		ids[panel.ID] = true
		for x := panel.Grid.X; x < panel.Grid.X+panel.Grid.W; x++ {
			for y := panel.Grid.Y; y < panel.Grid.Y+panel.Grid.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= gridWidth {
					t.Fatalf("panel %q overlaps %q, or leaves the %d columns", panel.Title, other, gridWidth)
				}
				taken[[2]int{x, y}] = panel.Title
			}
		}
	}
}

// TestDashboardInPrometheus lets promtool parse every expression, by making a rule of each.
func TestDashboardInPrometheus(t *testing.T) {
	promtool := tool(t, "promtool")
	type recording struct {
		Record     string `yaml:"record"`
		Expression string `yaml:"expr"`
	}
	var rules []recording
	variables := strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h", "$instance", ".*")
	for _, panel := range readDashboard(t).Panels {
		for _, target := range panel.Targets {
			rules = append(rules, recording{"panel", variables.Replace(target.Expression)})
		}
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, promtool, "check", "rules", "--lint=none", path)
}
