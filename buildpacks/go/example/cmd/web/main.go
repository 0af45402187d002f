// Command web says hello, and which release it is.
package main

import (
	"cmp"
	"html/template"
	"log"
	"net/http"
	"os"
)

var page = template.Must(template.ParseFiles("templates/hello.txt"))

func main() {
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := page.Execute(w, cmp.Or(os.Getenv("PAASD_RELEASE"), "none")); err != nil {
			log.Print(err)
		}
	})
	http.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	log.Fatal(http.ListenAndServe(":"+cmp.Or(os.Getenv("PORT"), "5000"), nil))
}
