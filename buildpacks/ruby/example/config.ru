# A small Rack app, served by the distribution's Puma: says hello, and which release it is.
require "erb"

page = ERB.new(File.read("views/hello.erb"))

run lambda { |env|
  release = ENV.fetch("PAASD_RELEASE", "none")
  body = env["PATH_INFO"] == "/health" ? "ok\n" : page.result_with_hash(release: release)
  [200, { "content-type" => "text/plain" }, [body]]
}
