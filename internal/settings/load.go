package settings

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Loaded is the outcome of [Load].
type Loaded struct {
	Settings Settings
	// Problems is everything that is wrong, in the order file, environment, flags; Warnings is
	// what is probably a mistake, but harmless.
	Problems, Warnings Problems

	sources map[string]Source
}

// Source says where the value of a setting came from. path is a setting's name, or a path below
// one in the file, such as namespaces.chat.
func (l *Loaded) Source(path string) Source {
	for {
		if source, ok := l.sources[path]; ok {
			return source
		}
		end := strings.LastIndexAny(path, ".[")
		if end < 0 {
			return Source{}
		}
		path = path[:end]
	}
}

// problem notes something wrong with a setting, at the place that its value came from.
func (l *Loaded) problem(path, message string) {
	l.Problems = append(l.Problems, Problem{Source: l.Source(path), Setting: path, Message: message})
}

// warn notes something that is probably a mistake.
func (l *Loaded) warn(path, message string) {
	l.Warnings = append(l.Warnings, Problem{Source: l.Source(path), Setting: path, Message: message})
}

// Load completes flags, the settings as the command line left them (defaults included), with the
// environment and the file. given says which settings the command line gave, by name.
// environment is a list of NAME=VALUE as from [os.Environ]; an empty value counts as absent.
//
// Load always returns a result; what is wrong stands in its Problems, and the setting concerned
// keeps the value of the layer below.
func Load(flags Settings, given []string, environment []string) *Loaded {
	loaded := &Loaded{Settings: flags, sources: map[string]Source{}}
	variables := variablesOf(environment)

	configSource := Source{}
	config := loaded.Settings.Config
	if slices.Contains(given, "config") {
		configSource = Source{Flag: "--config"}
	} else if path := variables[environmentPrefix+"CONFIG"]; path != "" {
		config, configSource = path, Source{Environment: environmentPrefix + "CONFIG"}
	}
	fromFile := Default()
	if config != "" {
		loaded.readFile(config, configSource, &fromFile)
	}
	for _, field := range fields() {
		loaded.resolve(&field, &fromFile, variables, slices.Contains(given, field.Name))
	}
	loaded.Settings.Config = config
	loaded.readCouncilKeys(environment)
	loaded.warnUnknownVariables(variables)
	return loaded
}

// variablesOf gives our variables of the environment that have a value.
func variablesOf(environment []string) map[string]string {
	variables := map[string]string{}
	for _, line := range environment {
		name, value, _ := strings.Cut(line, "=")
		if value != "" && strings.HasPrefix(name, environmentPrefix) {
			variables[name] = value
		}
	}
	return variables
}

// resolve gives one setting its value by the order of precedence. Every layer is checked, also
// where a higher one wins: a mistake in the file stays one when a flag hides it.
func (l *Loaded) resolve(field *Field, fromFile *Settings, variables map[string]string, given bool) {
	target := field.value(&l.Settings)
	fileSource, inFile := l.sources[field.Name]
	fromVariable, inEnvironment := l.readVariable(field, variables)
	switch {
	case given:
		source := Source{Flag: "--" + field.Name}
		l.sources[field.Name] = source
		if err := field.checkRange(target); err != nil {
			l.problem(field.Name, err.Error())
		}
	case inEnvironment:
		target.Set(fromVariable)
		l.sources[field.Name] = Source{Environment: field.Environment}
	case inFile:
		target.Set(field.value(fromFile))
		l.sources[field.Name] = fileSource
	}
}

// readVariable reads the setting's variable of the environment, where there is a valid one.
func (l *Loaded) readVariable(field *Field, variables map[string]string) (reflect.Value, bool) {
	input, ok := variables[field.Environment]
	if !ok || field.Environment == "" {
		return reflect.Value{}, false
	}
	value := reflect.New(field.value(&l.Settings).Type()).Elem()
	err := parseText(value, input)
	if err == nil {
		err = field.checkRange(value)
	}
	if err != nil {
		l.Problems = append(l.Problems, Problem{
			Source: Source{Environment: field.Environment}, Setting: field.Name, Message: err.Error(),
		})
		return reflect.Value{}, false
	}
	return value, true
}

// otherVariables are no settings: other commands read them, or a gateway sets one for its successor. Names
// without the prefix.
var otherVariables = []string{"URL", "TOKEN", "HANDOFF"}

// warnUnknownVariables tells of variables that look like a misspelt setting. One that is like
// nothing is left alone: Kubernetes, for one, sets MILLRACE_SERVICE_HOST and the like.
func (l *Loaded) warnUnknownVariables(variables map[string]string) {
	known := slices.Clone(otherVariables)
	for _, field := range fields() {
		if field.Environment != "" {
			known = append(known, strings.TrimPrefix(field.Environment, environmentPrefix))
		}
	}
	for _, variable := range slices.Sorted(maps.Keys(variables)) {
		name := strings.TrimPrefix(variable, environmentPrefix)
		near := nearest(name, known)
		if slices.Contains(known, name) || near == "" {
			continue
		}
		l.Warnings = append(l.Warnings, Problem{
			Source:  Source{Environment: variable},
			Message: "this is no setting; did you mean " + environmentPrefix + near + "?",
		})
	}
}
