//! The fields that are read, all of them optional.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A field that is there in the expected form, or as good as absent.
#[derive(Debug)]
pub(super) struct Lenient<T>(Option<T>);

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: for<'a> Deserialize<'a>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(T::deserialize(Value::deserialize(deserializer)?).ok()))
    }
}

impl<T> Lenient<T> {
    pub(super) fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }

    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl Lenient<Count> {
    pub(super) fn count(&self) -> Option<u64> {
        self.get().map(|count| count.0)
    }
}

/// A list whose bad rows are left out.
pub(super) type Rows<T> = Lenient<Vec<Lenient<T>>>;

impl<T> Rows<T> {
    pub(super) fn rows(&self) -> impl Iterator<Item = &T> + use<'_, T> {
        self.get().map(Vec::as_slice).unwrap_or_default().iter().filter_map(Lenient::get)
    }
}

/// A count; large ones may come as text.
#[derive(Debug)]
pub(super) struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let count = match Value::deserialize(deserializer)? {
            Value::Number(number) => number.as_u64(),
            Value::String(digits) => digits.parse().ok(),
            _ => None,
        };
        count.map(Self).ok_or_else(|| serde::de::Error::custom("no count"))
    }
}

macro_rules! shapes {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $kind:ty),+ $(,)? })+) => {
        $($(#[$meta])* #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        pub(super) struct $name { $(pub(super) $field: $kind),+ })+
    };
}

shapes! {
    /// The whole of it.
    Document {
        json_format_version: Lenient<Value>,
        smartctl: Lenient<Smartctl>,
        device: Lenient<Device>,
        devices: Lenient<Value>,
        model_name: Lenient<String>,
        scsi_model_name: Lenient<String>,
        vendor: Lenient<String>,
        scsi_vendor: Lenient<String>,
        product: Lenient<String>,
        scsi_product: Lenient<String>,
        revision: Lenient<String>,
        scsi_revision: Lenient<String>,
        serial_number: Lenient<String>,
        firmware_version: Lenient<String>,
        smart_support: Lenient<Support>,
        smart_status: Lenient<Status>,
        temperature: Lenient<Temperature>,
        power_on_time: Lenient<PowerOnTime>,
        endurance_used: Lenient<Percent>,
        ata_smart_data: Lenient<SmartData>,
        ata_smart_attributes: Lenient<Attributes>,
        ata_smart_error_log: Lenient<ErrorLogs>,
        ata_smart_self_test_log: Lenient<SelfTestLogs>,
        ata_pending_defects_log: Lenient<Defects>,
        ata_device_statistics: Lenient<Statistics>,
        nvme_smart_health_information_log: Lenient<Health>,
        nvme_self_test_log: Lenient<NvmeSelfTests>,
        scsi_grown_defect_list: Lenient<Count>,
        scsi_percentage_used_endurance_indicator: Lenient<Count>,
        scsi_pending_defects: Lenient<Defects>,
        scsi_error_counter_log: Lenient<ErrorCounters>,
    }
    Smartctl { exit_status: Lenient<Count>, messages: Rows<Message> }
    Message { string: Lenient<String> }
    Device { r#type: Lenient<String>, protocol: Lenient<String> }
    Support { available: Lenient<bool>, enabled: Lenient<bool> }
    Status { passed: Lenient<bool>, scsi: Lenient<Informational> }
    /// The informational exception of a SCSI disk.
    Informational { ie_string: Lenient<String> }
    Temperature { current: Lenient<Count> }
    PowerOnTime { hours: Lenient<Count> }
    Percent { current_percent: Lenient<Count> }
    SmartData { self_test: Lenient<LastSelfTest> }
    LastSelfTest { status: Lenient<Coded> }
    Attributes { table: Rows<Row> }
    /// An attribute.
    Row {
        id: Lenient<Count>,
        name: Lenient<String>,
        value: Lenient<Count>,
        when_failed: Lenient<String>,
        flags: Lenient<Flags>,
        raw: Lenient<Raw>,
    }
    Flags { prefailure: Lenient<bool> }
    Raw { value: Lenient<Count>, string: Lenient<String> }
    ErrorLogs { summary: Lenient<ErrorLog>, extended: Lenient<ErrorLog> }
    ErrorLog { table: Rows<ErrorEntry> }
    ErrorEntry { error_description: Lenient<String> }
    SelfTestLogs { standard: Lenient<SelfTests>, extended: Lenient<SelfTests> }
    SelfTests { table: Rows<SelfTest> }
    SelfTest { r#type: Lenient<Named>, status: Lenient<Coded> }
    Named { string: Lenient<String> }
    Coded { value: Lenient<Count> }
    Defects { count: Lenient<Count> }
    Statistics { pages: Rows<Page> }
    Page { table: Rows<Statistic> }
    Statistic { name: Lenient<String>, value: Lenient<Count> }
    /// NVMe log page 2.
    Health {
        critical_warning: Lenient<Count>,
        temperature: Lenient<Count>,
        available_spare: Lenient<Count>,
        available_spare_threshold: Lenient<Count>,
        percentage_used: Lenient<Count>,
        power_on_hours: Lenient<Count>,
        media_errors: Lenient<Count>,
    }
    NvmeSelfTests { table: Rows<NvmeSelfTest> }
    NvmeSelfTest { self_test_result: Lenient<Coded> }
    ErrorCounters { read: Lenient<Errors>, write: Lenient<Errors>, verify: Lenient<Errors> }
    Errors { total_uncorrected_errors: Lenient<Count> }
}

impl Document {
    /// Whether anything in it is a word of `smartctl`.
    pub(super) fn is_of_smartctl(&self) -> bool {
        self.smartctl.is_some()
            || self.json_format_version.is_some()
            || self.device.is_some()
            || self.smart_status.is_some()
            || self.ata_smart_attributes.is_some()
            || self.nvme_smart_health_information_log.is_some()
            || self.scsi_error_counter_log.is_some()
    }
}
