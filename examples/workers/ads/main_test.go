package ads

import (
	"os"
	"testing"

	"github.com/millrace/millrace/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }
