//! The project's own recordings: outputs in the layouts of `smartctl`, of disks that do not exist.

/// A SATA disk of `smartctl -a`, version 7, with a sector that waits.
pub(super) const ATA: &str = "\
smartctl 7.4 2023-08-01 r5530 [x86_64-linux-6.8.0] (local build)
Copyright (C) 2002-23, Bruce Allen, Christian Franke, www.smartmontools.org

=== START OF INFORMATION SECTION ===
Model Family:     Resilver Test Disks
Device Model:     RSV TESTDISK 4000
Serial Number:    RSV-0001
Firmware Version: RS01
User Capacity:    4,000,787,030,016 bytes [4.00 TB]
ATA Version is:   ACS-3 T13/2161-D revision 5
SMART support is: Available - device has SMART capability.
SMART support is: Enabled

=== START OF READ SMART DATA SECTION ===
SMART overall-health self-assessment test result: PASSED

General SMART Values:
Self-test execution status:      ( 121)\tThe previous self-test completed having
\t\t\t\t\tthe read element of the test failed.

SMART Attributes Data Structure revision number: 16
Vendor Specific SMART Attributes with Thresholds:
ID# ATTRIBUTE_NAME          FLAG     VALUE WORST THRESH TYPE      UPDATED  WHEN_FAILED RAW_VALUE
  1 Raw_Read_Error_Rate     0x000f   082   064   044    Pre-fail  Always       -       148350832
  5 Reallocated_Sector_Ct   0x0033   100   100   010    Pre-fail  Always       -       0
  9 Power_On_Hours          0x0032   099   099   000    Old_age   Always       -       1380 (12 34 0)
187 Reported_Uncorrect      0x0032   100   100   000    Old_age   Always       -       0
188 Command_Timeout         0x0032   100   099   000    Old_age   Always       -       0 0 1
190 Airflow_Temperature_Cel 0x0022   069   039   040    Old_age   Always   In_the_past 31 (Min/Max 25/61)
194 Temperature_Celsius     0x0022   033   040   000    Old_age   Always       -       33 (0 22 0 0 0)
197 Current_Pending_Sector  0x0012   100   100   000    Old_age   Always       -       8
198 Offline_Uncorrectable   0x0010   100   100   000    Old_age   Offline      -       0
199 UDMA_CRC_Error_Count    0x003e   200   200   000    Old_age   Always       -       7

SMART Error Log Version: 1
ATA Error Count: 2
Error 2 occurred at disk power-on lifetime: 1370 hours (57 days + 2 hours)
  40 51 c8 e0 bd 71 00  Error: UNC 8 sectors at LBA = 0x0071bde0 = 7454176
Error 1 occurred at disk power-on lifetime: 12 hours (0 days + 12 hours)
  84 51 19 67 aa ff 07  Error: ICRC, ABRT at LBA = 0x07ffaa67 = 134195815

SMART Self-test log structure revision number 1
Num  Test_Description    Status                  Remaining  LifeTime(hours)  LBA_of_first_error
# 1  Short offline       Completed: read failure       90%      1375         7454176
# 2  Extended offline    Completed without error       00%      1284         -
# 3  Short offline       Completed: read failure       90%      1200         12
";

/// The brief layout of `-x`, which is fine; device statistics of version 7.
pub(super) const ATA_BRIEF: &str = "\
smartctl 7.2 2020-12-30 r5155 [x86_64-linux-5.10.0] (local build)
=== START OF INFORMATION SECTION ===
Device Model:     RSV FLASH 480
Serial Number:    RSV-0002
SMART support is: Enabled
=== START OF READ SMART DATA SECTION ===
SMART overall-health self-assessment test result: PASSED
ID# ATTRIBUTE_NAME          FLAGS    VALUE WORST THRESH FAIL RAW_VALUE
  5 Reallocated_Sector_Ct   PO--CK   100   100   010    -    0
  9 Power_On_Hours          -O--CK   094   094   000    -    6206h+47m+20.770s
177 Wear_Leveling_Count     PO--C-   081   081   000    -    278
194 Temperature_Celsius     -O---K   070   050   000    -    30 (Min/Max 20/50)
                            ||||||_ K auto-keep
Device Statistics (GP Log 0x04)
Page  Offset Size        Value Flags Description
0x04  =====  =               =  ===  == General Errors Statistics (rev 1) ==
0x04  0x008  4               0  ---  Number of Reported Uncorrectable Errors
0x06  0x018  4               5  ---  Number of Interface CRC Errors
0x07  0x008  1              19  N--  Percentage Used Endurance Indicator
SMART Extended Self-test Log Version: 1 (1 sectors)
No self-tests have been logged.  [To run self-tests, use: smartctl -t]
";

/// Early version 5: no column of when an attribute is updated.
pub(super) const ATA_OLD: &str = "\
smartctl version 5.21 Copyright (C) 2002-3 Bruce Allen
Home page is http://smartmontools.sourceforge.net/
=== START OF READ SMART DATA SECTION ===
SMART overall-health self-assessment test result: FAILED!
Drive failure expected in less than 24 hours. SAVE ALL DATA.
ID# ATTRIBUTE_NAME          FLAG     VALUE WORST THRESH TYPE     WHEN_FAILED RAW_VALUE
  5 Reallocated_Sector_Ct   0x0033   009   009   010    Pre-fail FAILING_NOW 1461
197 Current_Pending_Sector  0x0012   100   100   000    Old_age      -       0
";

/// A SAS disk that passes and has lost data.
pub(super) const SAS: &str = "\
smartctl 6.6 2016-05-31 r4324 [x86_64-linux-4.9.0] (local build)
=== START OF INFORMATION SECTION ===
Vendor:               RSV
Product:              SASDISK600
Revision:             A001
Serial number:        RSV-0003
Device type:          disk
Transport protocol:   SAS (SPL-3)
SMART support is:     Available - device has SMART capability.
SMART support is:     Enabled
=== START OF READ SMART DATA SECTION ===
SMART Health Status: OK

Current Drive Temperature:     34 C
Drive Trip Temperature:        60 C

Accumulated power on time, hours:minutes 16003:18 [960198 minutes]
Elements in grown defect list: 3

Vendor (Seagate/Hitachi) factory information
  number of hours powered up = 16003,30

Error counter log:
           Errors Corrected by           Total   Correction     Gigabytes    Total
               ECC          rereads/    errors   algorithm      processed    uncorrected
           fast | delayed   rewrites  corrected  invocations   [10^9 bytes]  errors
read:   2959553965        0         0  2959553965          0      87202,134           2
write:         0        0         0         0          0     296033.679           0

Non-medium error count:       12

SMART Self-test log
Num  Test              Status                 segment  LifeTime  LBA_first_err [SK ASC ASQ]
# 1  Background short  Failed in segment -->       3     134                 7 [0x3 0x11 0x0]
# 2  Background short  Completed                   -     130                 - [-   -    -]
";

/// An NVMe disk that passes and warns.
pub(super) const NVME: &str = "\
smartctl 7.3 2022-02-28 r5338 [x86_64-linux-6.1.0] (local build)
=== START OF INFORMATION SECTION ===
Model Number:                       RSV NVME 1T
Serial Number:                      RSV-0004
Firmware Version:                   N001
NVMe Version:                       1.4
=== START OF SMART DATA SECTION ===
SMART overall-health self-assessment test result: PASSED

SMART/Health Information (NVMe Log 0x02)
Critical Warning:                   0x04
Temperature:                        45 Celsius
Available Spare:                    9%
Available Spare Threshold:          10%
Percentage Used:                    104%
Data Units Read:                    81 966 502 [41,9 TB]
Power On Hours:                     1\u{fffd}998
Media and Data Integrity Errors:    1,028
Error Information Log Entries:      283

Error Information (NVMe Log 0x01, 16 of 64 entries)
No Errors Logged

Self-test Log (NVMe Log 0x06)
Self-test status: No self-test in progress
Num  Test_Description  Status                       Power_on_Hours  Failing_LBA  NSID Seg SCT Code
 0   Short             Completed: failed segments           1990            -     -   2   -    -
 1   Short             Completed without error              1200            -     -   -   -    -
";

/// The SATA disk as JSON.
pub(super) const ATA_JSON: &str = r#"{
  "json_format_version": [1, 0],
  "smartctl": {"version": [7, 4], "argv": ["smartctl", "-a", "--json", "/dev/sdx"], "exit_status": 192,
    "messages": [{"string": "Warning: a test", "severity": "warning"}]},
  "device": {"name": "/dev/sdx", "type": "sat", "protocol": "ATA"},
  "model_name": "RSV TESTDISK 4000", "serial_number": "RSV-0001", "firmware_version": "RS01",
  "smart_support": {"available": true, "enabled": true},
  "smart_status": {"passed": true},
  "ata_smart_data": {"self_test": {"status": {"value": 121, "passed": false}}},
  "ata_smart_attributes": {"revision": 16, "table": [
    {"id": 5, "name": "Reallocated_Sector_Ct", "value": 100, "worst": 100, "thresh": 10, "when_failed": "",
      "flags": {"value": 51, "prefailure": true}, "raw": {"value": 0, "string": "0"}},
    {"id": "nine", "name": "Power_On_Hours"},
    {"id": 10, "name": "Spin_Retry_Count", "value": 90, "thresh": 97, "when_failed": "past",
      "flags": {"prefailure": true}, "raw": {"value": 1, "string": "1"}},
    {"id": 194, "name": "Temperature_Celsius", "value": 33, "raw": {"value": 94489280545, "string": "33 (0 22 0 0 0)"}},
    {"id": 197, "name": "Current_Pending_Sector", "value": 100, "raw": {"value": 8}}
  ]},
  "power_on_time": {"hours": 1380}, "temperature": {"current": 33},
  "ata_smart_error_log": {"summary": {"count": 2, "table": [
    {"error_description": "Error: UNC at LBA = 0x0071bde0 = 7454176"},
    {"error_description": "Error: ICRC, ABRT at LBA = 0x07ffaa67"}]}},
  "ata_smart_self_test_log": {"standard": {"count": 3, "table": [
    {"type": {"string": "Short offline"}, "status": {"value": 121, "string": "Completed: read failure"}},
    {"type": {"string": "Extended offline"}, "status": {"value": 0, "passed": true}},
    {"type": {"string": "Short offline"}, "status": {"value": 121}}]}}
}"#;

/// An NVMe disk that is hot, and nothing else: it "fails" by its own word.
pub(super) const NVME_JSON: &str = r#"{
  "smartctl": {"exit_status": 8},
  "device": {"name": "/dev/nvme0", "type": "nvme", "protocol": "NVMe"},
  "model_name": "RSV NVME 1T", "serial_number": "RSV-0004", "firmware_version": "N001",
  "smart_status": {"passed": false, "nvme": {"value": 2}},
  "nvme_smart_health_information_log": {"critical_warning": 2, "temperature": 84, "available_spare": 100,
    "available_spare_threshold": 10, "percentage_used": 3, "power_on_hours": 4733, "media_errors": 0},
  "nvme_self_test_log": {"table": [{"self_test_result": {"value": 0}}]}
}"#;

/// A SAS disk of version 7.4.
pub(super) const SAS_JSON: &str = r#"{
  "smartctl": {"exit_status": 0},
  "device": {"name": "/dev/sdy", "type": "scsi", "protocol": "SCSI"},
  "scsi_vendor": "RSV", "scsi_product": "SASDISK600", "scsi_revision": "A001", "serial_number": "RSV-0003",
  "smart_status": {"passed": true}, "temperature": {"current": 0}, "power_on_time": {"hours": 16003, "minutes": 18},
  "scsi_grown_defect_list": 0, "scsi_percentage_used_endurance_indicator": 101, "scsi_pending_defects": {"count": 0},
  "scsi_error_counter_log": {"read": {"total_uncorrected_errors": 0}, "write": {"total_uncorrected_errors": 0},
    "verify": {"total_uncorrected_errors": 1}},
  "scsi_self_test_0": {"result": {"value": 7}}, "scsi_self_test_1": {"result": {"value": 0}}
}"#;

/// All of them.
pub(super) const ALL: [&str; 8] = [ATA, ATA_BRIEF, ATA_OLD, SAS, NVME, ATA_JSON, NVME_JSON, SAS_JSON];
