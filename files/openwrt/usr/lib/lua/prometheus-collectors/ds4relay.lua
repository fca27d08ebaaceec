-- The status of ds4relay as figures; docs/metrics.md lists them. `ds4relay metrics` prints the same on Debian.
local ubus = require "ubus"

local escapes = { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }

-- The exporter writes labels as they are.
local function escape(text)
  return (text:gsub('[\\"\n]', escapes))
end

local function truth(value)
  return value and 1 or 0
end

local function status()
  local connection = ubus.connect()
  if not connection then
    error("ds4relay: there is no ubus")
  end
  local answer = connection:call("ds4relay", "status", {})
  connection:close()
  if not answer then
    error("ds4relay has no status: see `ds4relay status`")
  end
  return answer
end

-- Calls add(name, value, labels) for everything that is known; a value that is not known is nil.
local function collect(answer, add)
  local connections = answer.connections or {}
  add("configuration_differs", truth(#answer.differs + #(answer.blocked or {}) > 0))
  add("conntrack_entries", connections.count)
  add("conntrack_entries_limit", connections.max)
  for _, relay in ipairs(answer.relays) do
    if relay.enabled then
      local counters, name = relay.counters or {}, escape(relay.name)
      local labels = { relay = name }
      add("relay_info", 1, { relay = name, role = relay.role, ipaddr = relay.ipaddr, device = escape(relay.device),
        transport = relay.transport })
      add("relay_up", truth(relay.up), labels)
      add("relay_active", ({ [true] = 1, [false] = 0 })[relay.active], labels)
      add("peer_heard_seconds", relay.heard_s, labels)
      add("peer_silent", ({ heard = 0, silent = 1 })[relay.other_end or ""], labels)
      if relay.peer_public_key then
        add("wireguard_info", 1, { relay = name, peer_public_key = relay.peer_public_key,
          endpoint = relay.endpoint or "" })
      end
      add("wireguard_handshake_seconds", relay.handshake_s, labels)
      add("tunnel_mtu_bytes", relay.mtu, labels)
      for _, what in ipairs({ "bytes", "packets", "errors" }) do
        add("tunnel_receive_" .. what .. "_total", counters["rx_" .. what], labels)
        add("tunnel_transmit_" .. what .. "_total", counters["tx_" .. what], labels)
      end
      for _, forward in ipairs(relay.forwards) do
        local flows, section = forward.flows or {}, escape(forward.section)
        local of = { relay = name, forward = section }
        add("forward_info", 1, { relay = name, forward = section, name = escape(forward.name or ""),
          dest_ip = forward.dest_ip })
        add("forward_host_up", ({ up = 1, missing = 0 })[forward.host or ""], of)
        add("forward_open_connections", flows.open, of)
        for _, direction in ipairs({ "in", "out" }) do
          add("forward_open_bytes", (flows[direction] or {}).bytes,
            { relay = name, forward = section, direction = direction })
        end
      end
    end
  end
end

local function scrape()
  local names, samples = {}, {}
  collect(status(), function(name, value, labels)
    if value and not samples[name] then
      names[#names + 1] = name
      samples[name] = {}
    end
    if value then
      table.insert(samples[name], { labels, string.format("%.0f", value) })
    end
  end)
  for _, name in ipairs(names) do
    local write = metric("ds4relay_" .. name, name:match("_total$") and "counter" or "gauge")
    for _, sample in ipairs(samples[name]) do
      write(sample[1], sample[2])
    end
  end
end

return { scrape = scrape }
