package suites

import (
	"encoding/xml"
	"fmt"
	"time"
)

// The JUnit XML that CI servers read: a broken promise is a failure, one that was not shown is skipped.
type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string    `xml:"classname,attr"`
	Name    string    `xml:"name,attr"`
	Failure *junitWhy `xml:"failure,omitempty"`
	Skipped *junitWhy `xml:"skipped,omitempty"`
	Output  string    `xml:"system-out,omitempty"`
}

type junitWhy struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// JUnit is the report for CI servers.
func JUnit(results []Result, took time.Duration) ([]byte, error) {
	promises := map[string]Promise{}
	for _, p := range Promises() {
		promises[p.Name] = p
	}
	s := junitSuite{Name: "bulkhead securitytest", Tests: len(results), Time: fmt.Sprintf("%.3f", took.Seconds())}
	for _, r := range results {
		p := promises[r.Promise]
		c := junitCase{Class: "bulkhead." + p.Suite, Name: fmt.Sprintf("%s (%s, %s)", r.Promise, r.Profile, r.Mode)}
		switch r.Status {
		case Broken:
			s.Failures++
			c.Failure = &junitWhy{r.Detail, "an attacker gains: " + p.Gain + "\nrepair: " + p.Repair}
		case NotShown:
			s.Skipped++
			c.Skipped = &junitWhy{Message: r.Detail}
		default:
			c.Output = r.Detail
		}
		s.Cases = append(s.Cases, c)
	}
	text, err := xml.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("JUnit report: %w", err)
	}
	return append([]byte(xml.Header), append(text, '\n')...), nil
}
