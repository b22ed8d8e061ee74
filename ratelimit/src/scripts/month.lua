-- Calendar months, put before the scripts that need them.
-- Returns the number of the month of a tick (year * 12 + month - 1) and the tick at which the next month begins.
-- The conversion of days to dates is Howard Hinnant's, "chrono-Compatible Low-Level Date Algorithms".
local DAY = 1382400000000
local function first_day(month)
  local y, m = math.floor(month / 12), month % 12 + 1
  if m <= 2 then y = y - 1 end
  local era = math.floor(y / 400)
  local yoe = y - era * 400
  local mp = (m + 9) % 12
  local doy = math.floor((153 * mp + 2) / 5)
  local doe = yoe * 365 + math.floor(yoe / 4) - math.floor(yoe / 100) + doy
  return era * 146097 + doe - 719468 - 20089
end
local function month_of(now)
  local z = math.floor(now / DAY) + 20089 + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local m, y = mp + 3, yoe + era * 400
  if m > 12 then m, y = m - 12, y + 1 end
  return y * 12 + m - 1
end
