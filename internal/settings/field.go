package settings

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// environmentPrefix goes before the name of every environment variable of ours.
const environmentPrefix = "MILLRACE_"

// Field describes one setting, as the tags of [Settings] have it.
type Field struct {
	Name        string // in flags and file
	Environment string // empty where the environment can't set it
	Help        string
	Group       string
	Default     string // as text; empty means none
	Bound       string // the allowed values, for people
	FileOnly    bool   // no flag and no variable
	InFile      bool   // the file may hold it
	Secret      bool   // never shown in whole

	minimum, maximum string
	auto, positive   bool
	choices          []string
	index            []int
}

// value gives the field's place in settings.
func (f *Field) value(settings *Settings) reflect.Value {
	return reflect.ValueOf(settings).Elem().FieldByIndex(f.index)
}

// Fields gives every setting in the order of the documentation. The slice is the caller's.
func Fields() []Field { return append([]Field(nil), fields()...) }

// fields reads the tags once. The result is shared and read only.
var fields = sync.OnceValue(func() []Field {
	var all []Field
	for group := range reflect.TypeFor[Settings]().NumField() {
		groupType := reflect.TypeFor[Settings]().Field(group).Type
		for index := range groupType.NumField() {
			all = append(all, newField(groupType.Field(index), []int{group, index}))
		}
	}
	return all
})

func newField(source reflect.StructField, index []int) Field {
	tag := source.Tag
	field := Field{
		Name: tag.Get("name"), Help: tag.Get("help"), Group: tag.Get("group"), Default: tag.Get("default"),
		Bound: tag.Get("bound"), FileOnly: tag.Get("only") == "file", InFile: tag.Get("file") != "no",
		Secret: tag.Get("secret") != "", minimum: tag.Get("min"), maximum: tag.Get("max"),
		auto: tag.Get("auto") != "", positive: tag.Get("zero") == "no", index: index,
	}
	if choices := tag.Get("enum"); choices != "" {
		field.choices = strings.Split(choices, ",")
	}
	if !field.FileOnly {
		field.Environment = environmentPrefix + strings.ToUpper(strings.ReplaceAll(field.Name, "-", "_"))
	}
	return field
}

// names gives the names of all settings that the file may hold.
func names() []string {
	var all []string
	for _, field := range fields() {
		if field.InFile {
			all = append(all, field.Name)
		}
	}
	return all
}

// checkRange holds a value that was read against the field's bounds.
func (f *Field) checkRange(value reflect.Value) error {
	if f.choices != nil {
		for _, choice := range f.choices {
			if value.String() == choice {
				return nil
			}
		}
		return fmt.Errorf("expected one of %s; got %q%s", strings.Join(f.choices, ", "), cut(value.String()),
			suggestion(value.String(), f.choices))
	}
	if value.Kind() != reflect.Int && value.Kind() != reflect.Int64 {
		return nil
	}
	number := value.Int()
	if number == int64(Auto) {
		if f.auto {
			return nil
		}
		return fmt.Errorf("there is no auto here; allowed is %s", f.Bound)
	}
	if number == 0 && f.positive {
		return fmt.Errorf("0 is not possible here; allowed is %s", f.Bound)
	}
	// 0 is no limit, and not measured by the least limit.
	if number != 0 && f.minimum != "" && number < f.bound(f.minimum, value.Type()) ||
		f.maximum != "" && number > f.bound(f.maximum, value.Type()) {
		return fmt.Errorf("%s is out of bounds; allowed is %s", text(value), f.Bound)
	}
	return nil
}

// bound reads a bound of the tags in the type of the field.
func (f *Field) bound(limit string, kind reflect.Type) int64 {
	value := reflect.New(kind).Elem()
	if err := parseText(value, limit); err != nil {
		panic("settings: bound of " + f.Name + ": " + err.Error())
	}
	return value.Int()
}

// parseText reads one value of a flag or of the environment into value.
func parseText(value reflect.Value, input string) error {
	if unmarshaler, ok := value.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return unmarshaler.UnmarshalText([]byte(input))
	}
	switch value.Kind() {
	case reflect.String:
		value.SetString(input)
	case reflect.Bool:
		parsed, err := strconv.ParseBool(input)
		if err != nil {
			return fmt.Errorf("expected true or false; got %q", cut(input))
		}
		value.SetBool(parsed)
	case reflect.Slice:
		return parseList(value, input)
	default:
		panic("settings: no reader for " + value.Type().String())
	}
	return nil
}

// parseList reads a comma list; a comma at its end is forgiven.
func parseList(value reflect.Value, input string) error {
	list := reflect.MakeSlice(value.Type(), 0, 4)
	for _, part := range strings.Split(input, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		element := reflect.New(value.Type().Elem()).Elem()
		if err := parseText(element, part); err != nil {
			return err
		}
		list = reflect.Append(list, element)
	}
	value.Set(list)
	return nil
}

// text writes a single value the way parseText reads it, without secrets.
func text(value reflect.Value) string {
	if marshaler, ok := value.Interface().(encoding.TextMarshaler); ok {
		written, err := marshaler.MarshalText()
		if err != nil {
			panic("settings: " + err.Error())
		}
		return string(written)
	}
	return fmt.Sprint(value.Interface())
}
