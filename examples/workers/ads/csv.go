package ads

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/examples/workers/channels"
)

const (
	rowsMax     = 100_000 // of one file
	problemsMax = 20      // that are told one by one
)

// columns of the file, in this order, which its first line must name.
var columns = []string{"time", "campaign", "impressions", "clicks", "conversions", "spend", "revenue"}

// Row is what one campaign did in one period.
type Row struct {
	Time        time.Time // the start of the period
	Campaign    string    // 1 to 128 of A-Z a-z 0-9 _ . @ = | + -
	Impressions int
	Clicks      int     // of those who saw it
	Conversions int     // of those who clicked
	Spend       float64 // in one currency
	Revenue     float64 // in the same
}

// Problem is a line that was passed over, and why.
type Problem struct {
	File         string
	Line, Column int // from 1; the column counts bytes
	Message      string
}

// String is FILE:LINE:COLUMN: what is wrong.
func (p Problem) String() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// File is what was read.
type File struct {
	Rows     []Row     // in the order of their times
	Problems []Problem // the first 20
	Bad      int       // lines that were passed over
}

// Read reads a file of campaigns' metrics. A bad line is passed over, counted and told; the error
// is for a file that can't be used at all. name is the file's name, for what is told.
func Read(name string, file io.Reader) (*File, error) {
	reader := csv.NewReader(file)
	reader.ReuseRecord = true
	header, err := reader.Read()
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%s:1:1: the file is empty; its first line must be %s", name, strings.Join(columns, ","))
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	case !slices.Equal(header, columns):
		return nil, fmt.Errorf("%s:1:1: the first line must be %s", name, strings.Join(columns, ","))
	}
	read := &File{}
	for {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		row, problem, err := read.parse(reader, record, err)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", name, err)
		case problem != nil:
			problem.File = name
			read.note(*problem)
		case len(read.Rows) == rowsMax:
			return nil, fmt.Errorf("%s: has more than %d rows", name, rowsMax)
		default:
			read.Rows = append(read.Rows, row)
		}
	}
	if len(read.Rows) == 0 {
		return nil, fmt.Errorf("%s: has no good row (%d bad ones)%s", name, read.Bad, read.first())
	}
	return read, nil
}

func (f *File) note(problem Problem) {
	f.Bad++
	if len(f.Problems) < problemsMax {
		f.Problems = append(f.Problems, problem)
	}
}

// first tells the first problem, where there is one.
func (f *File) first() string {
	if len(f.Problems) == 0 {
		return ""
	}
	return "; the first: " + f.Problems[0].String()
}

// parse turns a record into a row, or says what is wrong with it. The error is the file's.
func (f *File) parse(reader *csv.Reader, record []string, err error) (Row, *Problem, error) {
	var syntax *csv.ParseError
	switch {
	case errors.As(err, &syntax) && errors.Is(syntax.Err, csv.ErrFieldCount):
		line, column := reader.FieldPos(0)
		return Row{}, &Problem{Line: line, Column: column, Message: fmt.Sprintf("has %d fields instead of %d", len(record), len(columns))}, nil
	case syntax != nil:
		return Row{}, &Problem{Line: syntax.Line, Column: syntax.Column, Message: syntax.Err.Error()}, nil
	case err != nil:
		return Row{}, nil, err
	}
	row, field, err := parseRow(record)
	if err == nil && len(f.Rows) > 0 && row.Time.Before(f.Rows[len(f.Rows)-1].Time) {
		field, err = 0, errors.New("time: goes back; rows must be in the order of their times")
	}
	if err != nil {
		line, column := reader.FieldPos(field)
		return Row{}, &Problem{Line: line, Column: column, Message: err.Error()}, nil
	}
	return row, nil, nil
}

// parseRow reads the fields of a record. field is the place of the one that is wrong.
func parseRow(record []string) (row Row, field int, err error) {
	if row.Time, err = time.Parse(time.RFC3339, record[0]); err != nil {
		return row, 0, fmt.Errorf("time: %q is not like 2026-11-02T13:00:00Z", record[0])
	}
	if row.Campaign = record[1]; !channels.IsID(row.Campaign) {
		return row, 1, fmt.Errorf("campaign: %q can't be in a channel's name", row.Campaign)
	}
	row.Campaign = strings.Clone(row.Campaign) // the record's bytes are one string for all its fields
	for place, value := range []*int{&row.Impressions, &row.Clicks, &row.Conversions} {
		if *value, err = strconv.Atoi(record[2+place]); err != nil || *value < 0 {
			return row, 2 + place, fmt.Errorf("%s: %q is not a whole number from 0 on", columns[2+place], record[2+place])
		}
	}
	switch {
	case row.Clicks > row.Impressions:
		return row, 3, fmt.Errorf("clicks: %d are more than the %d impressions", row.Clicks, row.Impressions)
	case row.Conversions > row.Clicks:
		return row, 4, fmt.Errorf("conversions: %d are more than the %d clicks", row.Conversions, row.Clicks)
	}
	for place, value := range []*float64{&row.Spend, &row.Revenue} {
		if *value, err = strconv.ParseFloat(record[5+place], 64); err != nil || !(*value >= 0) || math.IsInf(*value, 0) {
			return row, 5 + place, fmt.Errorf("%s: %q is not an amount from 0 on", columns[5+place], record[5+place])
		}
	}
	return row, 0, nil
}
